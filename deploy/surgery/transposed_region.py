"""A region of operators without a layout of their own, computed in another axis order at once.

Constants turn, axes get their other name, Transposes at the border go or merge, and one appears
where somebody still needs the old order. The region turns when the Transposes left move fewer bytes
(they can't grow: it comes to an end).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import onnx_graphsurgeon as gs

from deploy.surgery.axis_order import Order, inverse, is_identity, permutation
from deploy.surgery.dense_rows import behind_reshape
from deploy.surgery.graph import producer
from deploy.surgery.region_nodes import replaced
from deploy.surgery.region_orders import UNIT, RegionOrders
from deploy.surgery.rewrite import Replace, Skip
from deploy.surgery.rounding_order import rounds_otherwise
from deploy.surgery.turned import Turned
from deploy.surgery.turned_operators import turned

# what one region may hold, and how many nodes it looks ahead without a gain: a large graph costs no
# more than linear time
_LARGEST = 512
_AHEAD = 24
_PASSES = 4
_AFFINE = ("Add", "Div", "Mul", "Sub")


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
    """Layout-free ops around a Transpose, and what turning some of them would save."""

    def __init__(self, perm: Order, seeds: Iterable[gs.Node], rounding: bool) -> None:
        self.orders = RegionOrders(perm)
        self.rounding = rounding
        self.refusal: Skip | None = None
        self._grow(deque(seeds))

    def _grow(self, queue: deque[gs.Node]) -> None:
        seen: set[int] = set()
        cost = best = patience = 0
        while queue and len(self.orders.ops) < _LARGEST and patience < _AHEAD:
            node = queue.popleft()
            node = behind_reshape(node) or node
            if id(node) in seen:
                continue
            seen.add(id(node))
            found = self._turned(node)
            if found is None:
                continue
            cost += self._add(node, found)
            best, patience = (cost, 0) if cost < best else (best, patience + 1)
            if found.order == self.orders.perm:
                queue.extend(reader for value in node.outputs for reader in value.outputs)
            sources = (producer(value) for value in self.orders.data(node))
            queue.extend(source for source in sources if source is not None)

    def _turned(self, node: gs.Node) -> Turned | None:
        """The node in the other order; None where it can't, and the first reason is kept."""
        found = turned(node, self.orders.perm)
        if isinstance(found, Turned) and not self.rounding:
            otherwise = _rounds_otherwise(node, found)
            found = found if otherwise is None else Skip(otherwise)
        if isinstance(found, Skip):
            self.refusal = self.refusal or found
            return None
        return found

    def _add(self, node: gs.Node, found: Turned) -> int:
        """Choose one more node; what that changes in cost."""
        self.orders.add(node, found)
        before = self.orders.share(node)
        self.orders.choose(node)
        return self.orders.share(node) - before

    def answer(self) -> Replace | Skip | None:
        """The region turned, if that is a gain."""
        orders = self.orders
        if self.rounding and not any(
            map(_rounds_otherwise, orders.nodes.values(), orders.ops.values())
        ):
            return None
        if not orders.ops:
            return self.refusal
        everything = list(orders.nodes.values())
        turned_whole = orders.cost(everything)
        self._shrink()
        after = orders.cost(everything)
        before = orders.cost_untouched(everything)
        if after < before:
            return replaced(orders, before // UNIT, after // UNIT)
        if self.refusal is not None or turned_whole == before:
            return self.refusal
        names = ", ".join(sorted({node.op for node in everything}))
        now, then_ = before // UNIT, turned_whole // UNIT
        return Skip(f"past {names}, transposes would move {then_} bytes instead of {now}")

    def _shrink(self) -> None:
        """Take single nodes out again while that costs nothing or saves bytes."""
        orders = self.orders
        for _ in range(_PASSES):
            left = len(orders.chosen)
            for key in [key for key in reversed(orders.ops) if key in orders.chosen]:
                node = orders.nodes[key]
                # at equal cost, what folds into the Conv stays with it
                inside = orders.share(node) - self._follows_dense(node)
                orders.leave(node)
                if orders.share(node) > inside:
                    orders.choose(node)
            if len(orders.chosen) == left:
                return

    def _follows_dense(self, node: gs.Node) -> bool:
        """Whether the node scales or shifts by a constant what a turned dense layer gives."""
        if node.op not in _AFFINE or not any(isinstance(v, gs.Constant) for v in node.inputs):
            return False
        sources = (producer(value) for value in self.orders.data(node))
        return any(
            id(source) in self.orders.chosen and self.orders.ops[id(source)].dense
            for source in sources
        )


def _rounds_otherwise(node: gs.Node, found: Turned) -> str | None:
    """Why the node, or one that turns with it, rounds another way."""
    return next(filter(None, map(rounds_otherwise, (node, *found.inside))), None)
