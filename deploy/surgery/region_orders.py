"""Which axis order every value around a set of nodes is in, and what the Transposes there move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
)
from deploy.surgery.graph import is_output, producer
from deploy.surgery.turned import Turned

# bytes first; among equal bytes, fewer Transposes of fewer axes
UNIT = 1 << 16


class RegionOrders:
    """Nodes that can be computed in another axis order (`ops` says how), and those of them that
    are `chosen` to be."""

    def __init__(self, perm: Order) -> None:
        self.perm = perm
        self.back = inverse(perm)
        self.nodes: dict[int, gs.Node] = {}
        self.ops: dict[int, Turned] = {}
        self.chosen: set[int] = set()
        self._ends: dict[int, int] = {}

    def add(self, node: gs.Node, found: Turned) -> None:
        """Know one more node, which isn't chosen yet."""
        self.nodes[id(node)], self.ops[id(node)] = node, found
        # what is turned as one is known by its last node, and read by its first
        self._ends.update({id(inner): id(node) for inner in found.inside})

    def order(self, value: gs.Tensor) -> Order | None:
        """From what a turned node gives for this value to the value; None for other values."""
        source = producer(value)
        return self.ops[id(source)].order if id(source) in self.chosen else None

    def data(self, node: gs.Node) -> list[gs.Tensor]:
        """What a node of the region reads in the other order."""
        found = self.ops[id(node)]
        return [found.inputs[index] for index in found.data]

    def entry(self, value: gs.Tensor) -> gs.Node | None:
        """The Transpose that brings this value into the region."""
        source = producer(value)
        if source is None or permutation(source) is None:
            return None
        return source if self.order(source.inputs[0]) is None else None

    def needed(self, value: gs.Tensor) -> bool:
        """Whether somebody needs this value in its old order (Transposes take either)."""
        made = self.order(value) is not None
        return is_output(value) or any(
            not self._takes(reader, value) and not (made and permutation(reader) is not None)
            for reader in value.outputs
        )

    def into(self, entry: gs.Node) -> Order:
        """From what an entering Transpose reads to the turned value."""
        return then(permutation(entry) or (), self.back)

    def out(self, leaving: gs.Node) -> Order:
        """From a turned value to what a leaving Transpose writes."""
        return then(self.order(leaving.inputs[0]) or (), permutation(leaving) or ())

    def cost(self, nodes: Iterable[gs.Node]) -> int:
        """What the Transposes in and around these nodes move, and turned ones more than before."""
        values: dict[int, gs.Tensor] = {}
        transposes: dict[int, gs.Node] = {}
        own = 0
        for node in nodes:
            own += self.ops[id(node)].extra_bytes * UNIT if id(node) in self.chosen else 0
            for value in (*self.data(node), *node.outputs):
                values[id(value)] = value
                for near in (producer(value), *value.outputs):
                    if near is not None and permutation(near) is not None:
                        transposes[id(near)] = near
            for transpose in list(transposes.values()):
                values[id(transpose.outputs[0])] = transpose.outputs[0]
        costs = (self._value_cost(value) for value in values.values())
        return own + sum(costs) + sum(map(self._transpose_cost, transposes.values()))

    def _turned_reader(self, reader: gs.Node) -> int | None:
        """The chosen node that this reader is, or is a part of."""
        key = self._ends.get(id(reader), id(reader))
        return key if key in self.chosen else None

    def _takes(self, reader: gs.Node, value: gs.Tensor) -> bool:
        """Whether a turned node reads this value in the other order, and only so."""
        key = self._turned_reader(reader)
        if key is None:
            return False
        data = self.ops[key].data
        return all(i in data for i, read in enumerate(reader.inputs) if read is value)

    def _is_data(self, value: gs.Tensor, reader: gs.Node) -> bool:
        key = self._turned_reader(reader)
        return key is not None and any(value is read for read in self.data(self.nodes[key]))

    def _value_cost(self, value: gs.Tensor) -> int:
        order = self.order(value)
        if order is not None:
            return _price(inverse(order), value.shape, value) if self.needed(value) else 0
        if not any(self._is_data(value, reader) for reader in value.outputs):
            return 0
        entry = self.entry(value)
        if entry is None:
            return _price(self.back, value.shape, value)
        return _price(self.into(entry), entry.inputs[0].shape, value)

    def _transpose_cost(self, node: gs.Node) -> int:
        value, result = node.inputs[0], node.outputs[0]
        order = self.order(value)
        if order is not None:
            shape = in_order(value.shape, inverse(order))
            return _price(self.out(node), shape, result)
        needed = self.needed(result) or not result.outputs
        return _price(permutation(node) or (), value.shape, result) if needed else 0


def _price(order: Order, shape: Sequence[object] | None, value: gs.Tensor) -> int:
    """What a Transpose of that shape moves; nothing where it only relabels."""
    if is_identity(order):
        return 0
    moved = 0 if shape is None or only_relabels(order, shape) else 2 * data_bytes(value)
    return moved * UNIT + len(order)
