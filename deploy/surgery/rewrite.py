"""The fusion driver: rules only say what they would do, the driver alone changes the graph.

A rule is a pure function `rule(node) -> Replace | Skip | None`. The driver runs it to a fixed
point over a work list, refuses a replacement that would lose a value somebody else reads, keeps
the names of outputs, names new constants after the output they feed (never after a weight, which
two nodes may share), raises the model's opset where a new operator needs it and all others allow
it, and reports what fired and, with its reason, what didn't.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.errors import ModelError
from deploy.surgery.graph import label, names_in_use, producer
from deploy.surgery.opset import needed_opset, raise_for, write_for
from deploy.surgery.region import type_name

# a rule that undoes another one's work would run for ever; honest rules stay far below this
_ROUNDS_PER_NODE = 20
# float8 came with 19, and Cast, Reshape and Identity took it at once
_FLOAT8_TURNS_FROM = 21


@dataclass(frozen=True)
class New:
    """A node to be made. An input is an existing tensor, an output of another `New` in the same
    `Replace`, or an array that becomes a constant; an output is an existing tensor (its name is
    kept) or a fresh `gs.Variable("")` (the driver names it). `axes` of Squeeze and Reduce* may be
    given as an attribute: the driver makes it an input where the opset has it so."""

    op: str
    inputs: tuple[gs.Tensor | np.ndarray, ...]
    outputs: tuple[gs.Variable, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    domain: str | None = None


@dataclass(frozen=True)
class Replace:
    """Take the nodes `remove` out and put `add` in; `bytes_saved` is traffic per sample."""

    remove: tuple[gs.Node, ...]
    add: tuple[New, ...]
    reason: str
    bytes_saved: int = 0


@dataclass(frozen=True)
class Skip:
    """The rule's pattern is there, but a guard holds: the reason, for the report."""

    reason: str


Rule = Callable[[gs.Node], Replace | Skip | None]


def rewrite(graph: gs.Graph, name: str, rule: Rule) -> list[Decision]:
    """Apply one rule everywhere it holds, in place; what fired first, then what was skipped."""
    driver = _Driver(graph, name, rule)
    driver.run()
    return driver.decisions()


class _Driver:
    def __init__(self, graph: gs.Graph, name: str, rule: Rule) -> None:
        self.graph = graph
        self.name = name
        self.rule = rule
        self.fired: list[Decision] = []
        self.skipped: dict[int, Decision] = {}
        self.in_the_way: dict[int, gs.Node] = {}
        self.alive = {id(node): node for node in graph.nodes}
        self.taken = names_in_use(graph.nodes)
        self.outputs = {id(tensor) for tensor in graph.outputs}

    def run(self) -> None:
        queue = deque(self.graph.nodes)
        budget = _ROUNDS_PER_NODE * (len(queue) + 1)
        while queue:
            node = queue.popleft()
            if id(node) not in self.alive:
                continue
            again = self._visit(node)
            queue.extend(again)
            # what fired counts: of a value with many readers every one looks at all of them again
            budget -= bool(again)
            if budget < 0:
                raise ModelError(
                    f"fusion {self.name!r} doesn't come to an end near node {label(node)!r}; "
                    "report this, and build with a target file that leaves it out"
                )
        if not self.fired:
            return  # sorting costs more than asking every node did
        self.graph.nodes = list(self.alive.values())
        self.graph.cleanup(remove_unused_graph_inputs=False).toposort()
        self.alive = {id(node): node for node in self.graph.nodes}

    def decisions(self) -> list[Decision]:
        """Every firing, and the skips of nodes that are still there."""
        left = [decision for key, decision in self.skipped.items() if key in self.alive]
        return self.fired + left

    def _visit(self, node: gs.Node) -> list[gs.Node]:
        """Try the rule on one node; the nodes to look at again."""
        self.skipped.pop(id(node), None)
        found = self.rule(node)
        if found is None:
            return []
        if isinstance(found, Replace):
            old = self.graph.opset
            refusal = self._refusal(found) or self._raise_opset(found)
            if refusal is None:
                return self._apply(node, found, old)
            found = Skip(refusal)
        if not isinstance(found, Skip) or not isinstance(found.reason, str):
            raise TypeError(
                f'it gave {found!r} for node {label(node)!r}; give Replace, Skip("why") or None'
            )
        self.skipped[id(node)] = self._decision("skipped", label(node), found.reason)
        return []

    def _refusal(self, found: Replace) -> str | None:
        """Why the replacement would lose a value; None when it is safe."""
        removed = {id(node) for node in found.remove}
        kept = {id(tensor) for new in found.add for tensor in new.outputs}
        reads = (value for new in found.add for value in new.inputs if isinstance(value, gs.Tensor))
        for value in reads:
            source = producer(value)
            # a body reads values from outside, so that its nodes are among their readers
            if source is not None and id(source) not in self.alive and id(value) not in kept:
                return f"{value.name!r} is computed in the body of another node"
        for node in found.remove:
            if id(node) not in self.alive:
                return f"{label(node)!r} lies in the body of another node"
            for tensor in node.outputs:
                if id(tensor) in kept:
                    continue
                if id(tensor) in self.outputs:
                    return f"{tensor.name!r} is an output of the model"
                for reader in tensor.outputs:
                    if id(reader) not in removed:
                        return f"{tensor.name!r} is also read by {label(reader)!r}"
        return None

    def _raise_opset(self, found: Replace) -> str | None:
        """Let the graph have the new operators; None, or why its opset can't be raised."""
        ops = {new.op for new in found.add if not new.domain}
        needs = [(needed_opset(op, self.graph.opset), op) for op in ops]
        if any(new.op == "Transpose" and _is_float8(new.outputs[0]) for new in found.add):
            needs.append((_FLOAT8_TURNS_FROM, "a Transpose of float8"))
        wanted, op = max(needs, default=(self.graph.opset, ""))
        return raise_for(self.graph, wanted, op, found.remove, self.in_the_way)

    def _apply(self, node: gs.Node, found: Replace, old_opset: int) -> list[gs.Node]:
        subject = label(node)
        neighbours = [t.inputs[0] for n in found.remove for t in n.inputs if t.inputs]
        for old in found.remove:
            _unlink(old)
            del self.alive[id(old)]
        made = [self._make(new) for new in found.add]
        for new in made:
            self.alive[id(new)] = new
        readers = [reader for n in made for t in n.outputs for reader in t.outputs]
        reason = found.reason
        if self.graph.opset != old_opset:
            reason += f"; the model's opset raised from {old_opset} to {self.graph.opset}"
        self.fired.append(self._decision("applied", subject, reason, found.bytes_saved))
        # each once: a chain of new nodes would be visited as often as it has links
        return list({id(n): n for n in (*neighbours, *made, *readers)}.values())

    def _make(self, new: New) -> gs.Node:
        for index, tensor in enumerate(new.outputs):
            if not tensor.name:
                # within a chain, named after its end and not after one another
                anchor = _anchor(new).split(f"/{self.name}/")[0]
                tensor.name = self._fresh(f"{anchor}/{self.name}/{new.op}_{index}")
        anchor = new.outputs[0].name
        inputs = [
            value
            if isinstance(value, gs.Tensor)
            # arithmetic with arrays of no dimension gives NumPy's scalars
            else gs.Constant(self._fresh(f"{anchor}/{new.op}_{index}"), np.asarray(value))
            for index, value in enumerate(new.inputs)
        ]
        node = gs.Node(
            new.op,
            f"{anchor}/{new.op}",
            attrs=dict(new.attrs),
            inputs=inputs,
            outputs=list(new.outputs),
            domain=new.domain,
        )
        if not new.domain:
            write_for(node, self.graph.opset)
        return node

    def _fresh(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return name

    def _decision(self, outcome: Any, subject: str, reason: str, saved: int = 0) -> Decision:
        return Decision("fuse", self.name, outcome, subject, reason, saved)


def _is_float8(tensor: gs.Tensor) -> bool:
    return type_name(tensor).startswith("float8")


def _unlink(node: gs.Node) -> None:
    """Take a node off the tensors around it.

    graphsurgeon does the same by comparing nodes in full, with every other reader of a tensor: for
    one that hundreds of nodes read that took most of the time.
    """
    for tensors, links in ((node.inputs, "outputs"), (node.outputs, "inputs")):
        for tensor in tensors:
            linked = getattr(tensor, links)
            list.__delitem__(linked, next(i for i, other in enumerate(linked) if other is node))
        list.clear(tensors)


def _anchor(new: New) -> str:
    """A name nearby for a fresh value: what the node reads first."""
    return next((v.name for v in new.inputs if isinstance(v, gs.Tensor) and v.name), "value")
