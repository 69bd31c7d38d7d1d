"""A region of operators without a layout of their own, computed in another axis order at once.

Constants turn, axes get their other name, Transposes at the border go or merge, and one appears
where somebody still needs the old order. The region turns when the Transposes left move fewer bytes
(they can't grow: it comes to an end).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from graphlib import TopologicalSorter

import onnx_graphsurgeon as gs

from deploy.surgery.axis_order import (
    Order,
    data_bytes,
    in_order,
    inverse,
    is_identity,
    only_relabels,
    permutation,
    then,
    turned,
)
from deploy.surgery.graph import is_output, producer
from deploy.surgery.rewrite import New, Replace, Skip
from deploy.surgery.rounding_order import rounds_otherwise
from deploy.surgery.turned import Turned

# what one region may hold, and how many nodes it looks ahead without a gain: a large graph costs no
# more than linear time
_LARGEST = 512
_AHEAD = 24
_PASSES = 4
# bytes first; among equal bytes, fewer Transposes of fewer axes
_UNIT = 1 << 16


def turn_region(node: gs.Node, *, rounding: bool) -> Replace | Skip | None:
    """Turn the region behind this Transpose, or the one in front of it.

    rounding: only regions with operators that round another way in another order; else only
    regions without any, which keep their bits.
    """
    perm = permutation(node)
    if perm is None or is_identity(perm):
        return None
    if any(value.shape is None for value in (node.inputs[0], node.outputs[0])):
        return Skip("the shapes around the Transpose are unknown")
    source = producer(node.inputs[0])
    found: Replace | Skip | None = None
    for order, seeds in ((perm, node.outputs[0].outputs), (inverse(perm), [source])):
        region = _Region(order, [seed for seed in seeds if seed is not None], rounding)
        answer = region.answer()
        if isinstance(answer, Replace):
            return answer
        found = found or answer
    return found


class _Region:
    """Layout-free ops around a Transpose, and what turning some of them (`chosen`) would cost."""

    def __init__(self, perm: Order, seeds: Iterable[gs.Node], rounding: bool) -> None:
        self.perm = perm
        self.back = inverse(perm)
        self.rounding = rounding
        self.nodes: dict[int, gs.Node] = {}
        self.ops: dict[int, Turned] = {}
        self.refusal: Skip | None = None
        self.chosen: set[int] = set()
        self._grow(deque(seeds))

    def _grow(self, queue: deque[gs.Node]) -> None:
        seen: set[int] = set()
        cost = best = patience = 0
        while queue and len(self.ops) < _LARGEST and patience < _AHEAD:
            node = queue.popleft()
            if id(node) in seen:
                continue
            seen.add(id(node))
            found = turned(node, self.perm)
            if isinstance(found, Turned) and not self.rounding:
                otherwise = rounds_otherwise(node)
                found = found if otherwise is None else Skip(otherwise)
            if isinstance(found, Skip):
                self.refusal = self.refusal or found
            if not isinstance(found, Turned):
                continue
            cost += self._add(node, found)
            best, patience = (cost, 0) if cost < best else (best, patience + 1)
            if found.order == self.perm:
                queue.extend(reader for value in node.outputs for reader in value.outputs)
            sources = (producer(node.inputs[index]) for index in found.data)
            queue.extend(source for source in sources if source is not None)

    def _add(self, node: gs.Node, found: Turned) -> int:
        """Choose one more node; what that changes in cost."""
        self.nodes[id(node)], self.ops[id(node)] = node, found
        before = self._cost([node])
        self.chosen.add(id(node))
        return self._cost([node]) - before

    def answer(self) -> Replace | Skip | None:
        """The region turned, if that is a gain."""
        if self.rounding and not any(map(rounds_otherwise, self.nodes.values())):
            return None
        if not self.ops:
            return self.refusal
        everything = list(self.nodes.values())
        turned_whole = self._cost(everything)
        self._shrink()
        after = self._cost(everything)
        turned_part, self.chosen = self.chosen, set()
        before = self._cost(everything)
        self.chosen = turned_part
        if after < before:
            return self._replace(before // _UNIT, after // _UNIT)
        if self.refusal is not None or turned_whole == before:
            return self.refusal
        names = ", ".join(sorted({node.op for node in everything}))
        now, then_ = before // _UNIT, turned_whole // _UNIT
        return Skip(f"past {names}, transposes would move {then_} bytes instead of {now}")

    def _shrink(self) -> None:
        """Take single nodes out again while that costs nothing or saves bytes."""
        for _ in range(_PASSES):
            left = len(self.chosen)
            for key in [key for key in reversed(self.ops) if key in self.chosen]:
                inside = self._cost([self.nodes[key]])
                self.chosen.remove(key)
                if self._cost([self.nodes[key]]) > inside:
                    self.chosen.add(key)
            if len(self.chosen) == left:
                return

    def _order(self, value: gs.Tensor) -> Order | None:
        """From what a turned node gives for this value to the value; None for other values."""
        source = producer(value)
        return self.ops[id(source)].order if id(source) in self.chosen else None

    def _takes(self, reader: gs.Node, value: gs.Tensor) -> bool:
        """Whether a turned node reads this value in the other order, and only so."""
        if id(reader) not in self.chosen:
            return False
        data = self.ops[id(reader)].data
        return all(i in data for i, read in enumerate(reader.inputs) if read is value)

    def _data(self, node: gs.Node) -> list[gs.Tensor]:
        return [node.inputs[index] for index in self.ops[id(node)].data]

    def _entry(self, value: gs.Tensor) -> gs.Node | None:
        """The Transpose that brings this value into the region."""
        source = producer(value)
        if source is None or permutation(source) is None:
            return None
        return source if self._order(source.inputs[0]) is None else None

    def _needed(self, value: gs.Tensor) -> bool:
        """Whether somebody needs this value in its old order (Transposes take either)."""
        made = self._order(value) is not None
        return is_output(value) or any(
            not self._takes(reader, value) and not (made and permutation(reader) is not None)
            for reader in value.outputs
        )

    def _cost(self, nodes: Iterable[gs.Node]) -> int:
        """What the Transposes in and around these nodes move."""
        values: dict[int, gs.Tensor] = {}
        transposes: dict[int, gs.Node] = {}
        for node in nodes:
            for value in (*self._data(node), *node.outputs):
                values[id(value)] = value
                for near in (producer(value), *value.outputs):
                    if near is not None and permutation(near) is not None:
                        transposes[id(near)] = near
            for transpose in list(transposes.values()):
                values[id(transpose.outputs[0])] = transpose.outputs[0]
        costs = (self._value_cost(value) for value in values.values())
        return sum(costs) + sum(self._transpose_cost(node) for node in transposes.values())

    def _value_cost(self, value: gs.Tensor) -> int:
        order = self._order(value)
        if order is not None:
            return _price(inverse(order), value.shape, value) if self._needed(value) else 0
        if not any(id(r) in self.chosen and _among(value, self._data(r)) for r in value.outputs):
            return 0
        entry = self._entry(value)
        if entry is None:
            return _price(self.back, value.shape, value)
        return _price(self._in(entry), entry.inputs[0].shape, value)

    def _transpose_cost(self, node: gs.Node) -> int:
        value, result = node.inputs[0], node.outputs[0]
        order = self._order(value)
        if order is not None:
            shape = in_order(value.shape, inverse(order))
            return _price(self._out(node), shape, result)
        needed = self._needed(result) or not result.outputs
        return _price(permutation(node) or (), value.shape, result) if needed else 0

    def _in(self, entry: gs.Node) -> Order:
        """From what an entering Transpose reads to the turned value."""
        return then(permutation(entry) or (), self.back)

    def _out(self, leaving: gs.Node) -> Order:
        """From a turned value to what a leaving Transpose writes."""
        return then(self._order(leaving.inputs[0]) or (), permutation(leaving) or ())

    def _replace(self, moved: int, still: int) -> Replace | Skip:
        """The chosen nodes turned, with the Transposes that are left around them."""
        nodes = [self.nodes[key] for key in self._sorted()]
        made = [value for node in nodes for value in node.outputs]
        leaving = [r for value in made for r in value.outputs if permutation(r) is not None]
        entries = {id(e): e for node in nodes for v in self._data(node) if (e := self._entry(v))}
        gone = [e for e in entries.values() if not self._needed(e.outputs[0])]
        values = {id(value): self._turned_value(value) for value in made}
        add: list[New] = []
        for node in nodes:
            for value in self._data(node):
                if id(value) not in values:
                    values[id(value)] = self._brought_in(value, add)
            add.append(self._turned_node(node, values))
        for value in made:
            if self._needed(value) and values[id(value)] is not value:
                add.append(_transpose(values[id(value)], value, self._order(value) or ()))
        for node in leaving:
            value, result = values[id(node.inputs[0])], node.outputs[0]
            if result is not value:
                add.append(_transpose(value, result, self._out(node)))
        before = len(leaving) + len(gone)
        after = sum(new.op == "Transpose" for new in add)
        # PP-OCRv4's attention with 3 Transposes for 2 and 25 % fewer bytes: 1.02 times slower
        if after > before and 2 * still > moved:
            return Skip(f"{before} Transposes of {moved} bytes would become {after} of {still}")
        reason = f"axis order of {len(nodes)} op(s) changed: Transposes {before} -> {after}"
        return Replace((*nodes, *leaving, *gone), tuple(add), reason, moved - still)

    def _sorted(self) -> list[int]:
        """The chosen nodes, each behind those it reads."""
        before = {
            key: [id(p) for v in self.nodes[key].inputs if (p := producer(v)) is not None]
            for key in self.ops
            if key in self.chosen
        }
        known = {
            key: [source for source in sources if source in before]
            for key, sources in before.items()
        }
        return list(TopologicalSorter(known).static_order())

    def _turned_value(self, value: gs.Variable) -> gs.Variable:
        """The value in the other order: itself, what a leaving Transpose gave, or a new one."""
        order = self._order(value) or ()
        if is_identity(order):
            return value
        for reader in value.outputs:
            if permutation(reader) is not None and is_identity(self._out(reader)):
                return reader.outputs[0]
        return gs.Variable("", value.dtype, in_order(value.shape, inverse(order)))

    def _brought_in(self, value: gs.Tensor, add: list[New]) -> gs.Tensor:
        """A value from outside in the other order, past the Transpose that brings it."""
        entry = self._entry(value)
        source, order = (value, self.back) if entry is None else (entry.inputs[0], self._in(entry))
        if is_identity(order):
            return source
        fresh = gs.Variable("", value.dtype, in_order(value.shape, self.back))
        add.append(_transpose(source, fresh, order))
        return fresh

    def _turned_node(self, node: gs.Node, values: dict[int, gs.Tensor]) -> New:
        found = self.ops[id(node)]
        inputs = tuple(
            values[id(node.inputs[i])] if i in found.data else value
            for i, value in enumerate(found.inputs)
        )
        outputs = tuple(values[id(value)] for value in node.outputs)
        return New(node.op, inputs, outputs, found.attrs, node.domain)


def _transpose(source: gs.Tensor, result: gs.Variable, order: Order) -> New:
    if is_identity(order):
        return New("Identity", (source,), (result,))
    return New("Transpose", (source,), (result,), {"perm": list(order)})


def _price(order: Order, shape: Sequence[object] | None, value: gs.Tensor) -> int:
    """What a Transpose of that shape moves; nothing where it only relabels."""
    if is_identity(order):
        return 0
    moved = 0 if shape is None or only_relabels(order, shape) else 2 * data_bytes(value)
    return moved * _UNIT + len(order)


def _among(value: gs.Tensor, values: Iterable[gs.Tensor]) -> bool:
    return any(value is other for other in values)
