"""The region around a channel shuffle: every channel followed from the layers in front, through
what moves it and what works on it alone, to the layers behind."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.channels import (
    channel_count,
    moved_channels,
    moved_inputs,
    shuffle_of,
    worked_inputs,
    works_per_channel,
)
from deploy.surgery.graph import constant

# enough for the stages of real networks; it bounds the work on endless ones
_MOST_MOVERS = 160

# (which value, which of its channels)
Atom = tuple[int, int]


@dataclass
class Value:
    """A value that exists in memory: made outside, or by a per-channel node inside the region.

    order: stored channel k is channel order[k] of the original value; fixed ones keep theirs.
    """

    tensor: gs.Tensor
    count: int
    maker: gs.Node | None = None
    fixed: bool = False
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @cached_property
    def place(self) -> np.ndarray:
        """Where each original channel is stored; asked for once the order is chosen."""
        return np.argsort(self.order)


@dataclass
class Region:
    """Nodes around a shuffle that move channels or work on each alone, up to where channels mix.

    Readers come with the atoms they need, in their order: dense layers (free), values that must
    exist as they were (fixed), and per-channel nodes, by the number of the value they make.
    """

    movers: list[gs.Node]
    workers: list[gs.Node]
    values: list[Value]
    free_readers: list[tuple[gs.Node, list[Atom]]]
    fixed_readers: list[tuple[gs.Tensor, list[Atom]]]
    worker_needs: dict[int, list[list[Atom]]]
    problem: str | None = None


def mixes_channels(node: gs.Node, index: int) -> bool:
    """Whether a reader is a dense layer: it takes any order, its weights permuted to match."""
    if index != 0 or len(node.inputs) < 2 or constant(node.inputs[1]) is None:
        return False
    if node.op == "Conv":
        return int(node.attrs.get("group", 1)) == 1
    return node.op == "Gemm" and not node.attrs.get("transA", 0)


def makes_any_order(tensor: gs.Tensor) -> bool:
    """Whether the producer can store its channels in any order, with its weights permuted."""
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None or node.op != "Conv" or int(node.attrs.get("group", 1)) != 1:
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    known = constant(node.inputs[1]) is not None
    return known and (bias is None or bias.is_empty() or constant(bias) is not None)


def explore(anchor: gs.Node) -> Region:
    """The region around a node that moves channels."""
    found = _Explorer()
    found.visit(anchor)
    return found.region()


class _Explorer:
    def __init__(self) -> None:
        self.movers: dict[int, gs.Node] = {}
        self.workers: dict[int, gs.Node] = {}
        self.tensors: dict[int, gs.Tensor] = {}
        self.known: dict[int, list[np.ndarray] | None] = {}
        self.problem: str | None = None

    def moves(self, node: gs.Node) -> list[np.ndarray] | None:
        """`moved_channels`, asked once per node: seeing through a shuffle costs."""
        if id(node) not in self.known:
            self.known[id(node)] = moved_channels(node)
        return self.known[id(node)]

    def visit(self, anchor: gs.Node) -> None:
        # nearest first: what lies beyond a region's limit reads it, or feeds it, as it was
        todo = deque([anchor])
        while todo and len(self.movers) < _MOST_MOVERS:
            node = todo.popleft()
            if id(node) in self.movers or id(node) in self.workers:
                continue
            if self.moves(node) is not None:
                self.movers[id(node)] = node
                near = [*moved_inputs(node), *node.outputs]
            elif works_per_channel(node):
                self.workers[id(node)] = node
                near = [*worked_inputs(node), node.outputs[0]]
            else:
                continue
            for tensor in near:
                self.tensors[id(tensor)] = tensor
                todo.extend(tensor.inputs)
                todo.extend(self._onward(tensor))

    def _onward(self, tensor: gs.Tensor) -> list[gs.Node]:
        """The readers of a value that may belong to the region; a shuffle by its last node."""
        found = []
        for reader in tensor.outputs:
            last = _end_of_shuffle(reader)
            if last is not None and self.moves(last) is not None:
                found.append(last)
            elif any(value is tensor for value in self._data_inputs(reader)):
                found.append(reader)
        return found

    def region(self) -> Region:
        inside = {**self.movers, **self.workers}
        order = self._topological(list(inside.values()))
        values: list[Value] = []
        atoms: dict[int, list[Atom]] = {}
        for tensor in self.tensors.values():
            maker = tensor.inputs[0] if tensor.inputs else None
            if maker is None or id(maker) not in inside:
                self._store(tensor, None, values, atoms)
        needs: dict[int, list[list[Atom]]] = {}
        for node in order:
            if id(node) in self.workers:
                self._store(node.outputs[0], node, values, atoms)
                needs[len(values) - 1] = [atoms[id(value)] for value in worked_inputs(node)]
                continue
            laid = [atom for value in moved_inputs(node) for atom in atoms[id(value)]]
            for out, channels in zip(node.outputs, self.moves(node) or [], strict=True):
                atoms[id(out)] = [laid[c] for c in channels]
        free, fixed = self._readers(inside, atoms)
        kept = {id(tensor) for tensor, _ in fixed}
        for value in values:
            value.fixed = value.fixed or id(value.tensor) in kept
        return Region(
            [n for n in order if id(n) in self.movers],
            [n for n in order if id(n) in self.workers],
            values,
            free,
            fixed,
            needs,
            self.problem,
        )

    def _store(
        self,
        tensor: gs.Tensor,
        maker: gs.Node | None,
        values: list[Value],
        atoms: dict[int, list[Atom]],
    ) -> None:
        count = channel_count(tensor)
        if count is None:
            self.problem = f"the channel count of {tensor.name!r} is unknown"
            count = 0
        free = maker is not None or makes_any_order(tensor)
        values.append(Value(tensor, count, maker, fixed=not free))
        atoms[id(tensor)] = [(len(values) - 1, c) for c in range(count)]

    def _readers(
        self, inside: dict[int, gs.Node], atoms: dict[int, list[Atom]]
    ) -> tuple[list[tuple[gs.Node, list[Atom]]], list[tuple[gs.Tensor, list[Atom]]]]:
        free, fixed = [], []
        skipped = {id(n) for m in self.movers.values() for n in (shuffle_of(m) or ())}
        for tensor in self.tensors.values():
            # nothing reads it, and it is still there: an output of the model
            as_it_was = not tensor.outputs
            for reader in tensor.outputs:
                if id(reader) in inside or id(reader) in skipped:
                    continue
                at = [i for i, value in enumerate(reader.inputs) if value is tensor]
                if at == [0] and mixes_channels(reader, 0):
                    free.append((reader, atoms[id(tensor)]))
                else:
                    as_it_was = True
            if as_it_was:
                fixed.append((tensor, atoms[id(tensor)]))
        return free, fixed

    def _data_inputs(self, node: gs.Node) -> list[gs.Tensor]:
        return moved_inputs(node) if self.moves(node) is not None else worked_inputs(node)

    def _topological(self, nodes: list[gs.Node]) -> list[gs.Node]:
        """The nodes so that each comes after what it reads."""
        inside = {id(node) for node in nodes}
        done: set[int] = set()
        order: list[gs.Node] = []
        for start in nodes:
            stack = [start]
            while stack:
                node = stack[-1]
                makers = [t.inputs[0] for t in self._data_inputs(node) if t.inputs]
                waiting = [m for m in makers if id(m) in inside and id(m) not in done]
                if waiting and id(node) not in done:
                    stack.extend(waiting)
                    continue
                stack.pop()
                if id(node) not in done:
                    done.add(id(node))
                    order.append(node)
        return order


def _end_of_shuffle(node: gs.Node) -> gs.Node | None:
    """The last Reshape of the shuffle that starts at this Reshape."""
    if node.op != "Reshape" or len(node.outputs[0].outputs) != 1:
        return None
    transpose = node.outputs[0].outputs[0]
    if transpose.op != "Transpose" or len(transpose.outputs[0].outputs) != 1:
        return None
    last = transpose.outputs[0].outputs[0]
    return last if last.op == "Reshape" else None
