"""Which axis order every value around a set of nodes is in, and what the Transposes there move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

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
    are `chosen` to be.

    How many readers of a value are turned is counted as they are chosen: to look at all of them for
    each would take quadratic time where a thousand nodes read one value.
    """

    def __init__(self, perm: Order) -> None:
        self.perm = perm
        self.back = inverse(perm)
        self.nodes: dict[int, gs.Node] = {}
        self.ops: dict[int, Turned] = {}
        self.chosen: set[int] = set()
        # by value: how many read it, the Transposes among them; how many take it turned, and how
        # many of those aren't Transposes
        self._readers: dict[int, tuple[int, tuple[gs.Node, ...]]] = {}
        self._takers: Counter[tuple[int, bool]] = Counter()
        self._data_of: Counter[int] = Counter()

    def add(self, node: gs.Node, found: Turned) -> None:
        """Know one more node, which isn't chosen yet."""
        self.nodes[id(node)], self.ops[id(node)] = node, found

    def choose(self, node: gs.Node) -> None:
        """Turn this node too."""
        self.chosen.add(id(node))
        self._count(node, 1)

    def leave(self, node: gs.Node) -> None:
        """Turn this node no longer."""
        self.chosen.remove(id(node))
        self._count(node, -1)

    def _count(self, node: gs.Node, more: int) -> None:
        # what is turned as one is known by its last node, and read by its first
        for reader in (node, *self.ops[id(node)].inside):
            is_transpose = permutation(reader) is not None
            for value in self._taken(reader, node):
                self._takers[id(value), False] += more
                self._takers[id(value), True] += 0 if is_transpose else more
        for value in {id(value): value for value in self.data(node)}.values():
            self._data_of[id(value)] += more

    def _taken(self, reader: gs.Node, node: gs.Node) -> Iterator[gs.Tensor]:
        """What a turned node, or one inside it, reads in the other order, and only so."""
        data = self.ops[id(node)].data
        for value in {id(value): value for value in reader.inputs}.values():
            if all(i in data for i, read in enumerate(reader.inputs) if read is value):
                yield value

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
        count, transposes = self._reading(value)
        others = count - len(transposes) if made else count
        return is_output(value) or others > self._takers[id(value), made]

    def _reading(self, value: gs.Tensor) -> tuple[int, tuple[gs.Node, ...]]:
        """How many nodes read a value, and the Transposes among them."""
        if id(value) not in self._readers:
            readers = {id(reader): reader for reader in value.outputs}.values()
            transposes = tuple(node for node in readers if permutation(node) is not None)
            self._readers[id(value)] = (len(readers), transposes)
        return self._readers[id(value)]

    def into(self, entry: gs.Node) -> Order:
        """From what an entering Transpose reads to the turned value."""
        return then(permutation(entry) or (), self.back)

    def out(self, leaving: gs.Node) -> Order:
        """From a turned value to what a leaving Transpose writes."""
        return then(self.order(leaving.inputs[0]) or (), permutation(leaving) or ())

    def cost(self, nodes: Iterable[gs.Node]) -> int:
        """What the Transposes in and around these nodes move, and turned ones more than before."""
        values: dict[int, gs.Tensor] = {}
        own = 0
        for node in nodes:
            own += self._extra(node)
            values.update({id(value): value for value in (*self.data(node), *node.outputs)})
        return own + self._around(values, values.values())

    def cost_untouched(self, nodes: Iterable[gs.Node]) -> int:
        """The same with none of them turned."""
        kept = self.chosen, self._takers, self._data_of
        self.chosen, self._takers, self._data_of = set(), Counter(), Counter()
        found = self.cost(nodes)
        self.chosen, self._takers, self._data_of = kept
        return found

    def share(self, node: gs.Node) -> int:
        """The part of the cost that changes when this one node is chosen or left."""
        values = {id(value): value for value in (*self.data(node), *node.outputs)}
        # the other readers of what it reads move what they moved
        return self._extra(node) + self._around(values, node.outputs)

    def _extra(self, node: gs.Node) -> int:
        return self.ops[id(node)].extra_bytes * UNIT if id(node) in self.chosen else 0

    def _around(self, values: dict[int, gs.Tensor], read: Iterable[gs.Tensor]) -> int:
        """The cost of these values, of the Transposes that make them, and of those that read some
        of them."""
        makers = [producer(value) for value in values.values()]
        near = [node for node in makers if node is not None and permutation(node) is not None]
        near += [node for value in read for node in self._reading(value)[1]]
        found = {id(node): node for node in near}
        values = values | {id(n.outputs[0]): n.outputs[0] for n in found.values()}
        costs = (self._value_cost(value) for value in values.values())
        return sum(costs) + sum(map(self._transpose_cost, found.values()))

    def _value_cost(self, value: gs.Tensor) -> int:
        order = self.order(value)
        if order is not None:
            return _price(inverse(order), value.shape, value) if self.needed(value) else 0
        if not self._data_of[id(value)]:
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
