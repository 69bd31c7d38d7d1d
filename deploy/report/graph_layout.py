"""Where the boxes of a graph go: layers from top to bottom, folded into columns like a newspaper.

A network is one long chain with side branches, so a plain layered drawing is a thin strip. Here the
layers are cut where few edges cross, and the pieces stand side by side: what reads a box lies below
it, or in a column further right.

Steps as in Sugiyama, Tagawa and Toda (1981): longest path layering, places for edges that pass a
layer, barycentre ordering; then coordinates by isotonic regression, which moves every box as little
as possible from the middle of its neighbours and lets none overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from deploy.report.graph_layers import Layers, layered

Point = tuple[float, float]

HEIGHT = 36.0
_ROW_GAP = 20.0
_GAP = 12.0
# an edge that passes a layer, and edges side by side between two columns
_LANE = 6.0
_MARGIN = 14.0
_PASSES = 6
# how hard it is to push aside a box of a chain, an edge on its way, and what bends off from another
_BOX, _WAY, _BEND = 8.0, 1.0, 0.001
# width over height that the picture should have: that of its place on the page
_ASPECT = 1.15


@dataclass(frozen=True)
class Box:
    """A box: its top left corner and width; the height is HEIGHT. column counts from the left."""

    x: float
    y: float
    width: float
    column: int

    @property
    def centre(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class Layout:
    """Boxes in the order they were given, and for each edge the corners of its way, from the bottom
    of one box to the top of the other."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    routes: tuple[tuple[Point, ...], ...]


def layout(widths: Sequence[float], edges: Sequence[tuple[int, int]]) -> Layout:
    """The same boxes and edges give the same picture; ValueError when the edges run in a circle.

    widths: of every box. edges: pairs of their indices, from writer to reader.
    """
    if not widths:
        return Layout(0.0, 0.0, (), ())
    layers = layered(len(widths), edges)
    sizes = [*widths, *[_LANE] * (len(layers.layer) - len(widths))]
    columns = _columns(layers, sizes)
    return _Drawing(layers, sizes, len(widths), columns).layout(edges)


def _columns(layers: Layers, sizes: Sequence[float]) -> list[range]:
    """The layers of each column: as many columns as bring the picture nearest to its shape."""
    count = len(layers.order)
    wide = [sum(sizes[i] for i in row) + _GAP * (len(row) - 1) for row in layers.order]
    crossing = layers.crossing()
    best: tuple[float, list[range]] | None = None
    for number in range(1, min(24, count) + 1):
        cuts = _cuts(count, number, crossing)
        columns = [range(a, b) for a, b in zip([0, *cuts], [*cuts, count], strict=True)]
        width = sum(max(wide[i] for i in column) + 4 * _GAP for column in columns)
        height = max(len(column) for column in columns) * (HEIGHT + _ROW_GAP)
        off = abs(math.log(width / height / _ASPECT))
        if best is None or off < best[0]:
            best = (off, columns)
    assert best is not None
    return best[1]


def _cuts(count: int, number: int, crossing: Sequence[int]) -> list[int]:
    """Where to cut `count` layers into `number` pieces: near equal, through the fewest edges."""
    slack = max(1, round(0.2 * count / number))
    found: list[int] = []
    for piece in range(1, number):
        ideal = round(piece * count / number)
        first = found[-1] + 1 if found else 1
        last = count - (number - piece)
        near = range(max(first, ideal - slack), min(last, ideal + slack) + 1)
        found.append(min(near or [first], key=lambda i: (crossing[i], abs(i - ideal), i)))
    return found


class _Drawing:
    """Coordinates of items: the boxes, and behind them the places where edges pass a layer."""

    def __init__(
        self, layers: Layers, sizes: Sequence[float], count: int, columns: Sequence[range]
    ) -> None:
        self.layers = layers
        self.count = count
        self.sizes = sizes
        self.columns = columns
        self.column = [0] * len(sizes)
        for number, column in enumerate(columns):
            for layer in column:
                for item in layers.order[layer]:
                    self.column[item] = number
        self.x = [0.0] * len(sizes)
        self.lanes = [self._lanes(column) for column in columns]
        top = _MARGIN + _LANE * max((len(lanes) for lanes in self.lanes), default=0)
        self.top = [0.0] * len(layers.order)
        for column in columns:
            for row, layer in enumerate(column):
                self.top[layer] = top + row * (HEIGHT + _ROW_GAP)
        rows = max(len(column) for column in columns)
        self.bottom = top + rows * (HEIGHT + _ROW_GAP) - _ROW_GAP
        self.gutter = [0.0] * len(columns)
        self.width = self._across()

    def _lanes(self, column: range) -> list[int]:
        """The items whose edges go on in the next column, in the order of their lanes."""
        last = self.layers.order[column[-1]]
        return [item for item in last if self.layers.readers[item]][::-1]

    def _across(self) -> float:
        """Set every x, column by column; the width of it all."""
        left = _MARGIN
        for number, column in enumerate(self.columns):
            items = [item for layer in column for item in self.layers.order[layer]]
            self._align(column)
            shift = left - min(self.x[i] - self.sizes[i] / 2 for i in items)
            for item in items:
                self.x[item] += shift
            right = max(self.x[i] + self.sizes[i] / 2 for i in items)
            self.gutter[number] = right + 2 * _GAP
            left = right + 4 * _GAP + _LANE * max(0, len(self.lanes[number]) - 1)
        return right + _MARGIN

    def _align(self, column: range) -> None:
        """Every item as near to its neighbours of the same column as the order allows."""
        for layer in column:
            self._spread(layer, [(0.0, _BOX)] * len(self.layers.order[layer]))
        for turn in range(_PASSES):
            down = turn % 2 == 0
            for layer in column if down else reversed(column):
                row = self.layers.order[layer]
                beside = self.layers.writers if down else self.layers.readers
                self._spread(layer, [self._wish(i, beside[i]) for i in row])

    def _wish(self, item: int, beside: Sequence[int]) -> tuple[float, float]:
        """The middle one of the neighbours in this column, of two the nearer; else where it is;
        and how much that counts.

        A box looks at boxes first and a passing edge at its own course, and no mean is taken: a
        chain would drift away beside an edge that runs along it.
        """
        box = item < self.count
        near = [i for i in beside if self.column[i] == self.column[item]]
        alike = [i for i in near if (i < self.count) == box]
        weight = _BEND if not alike else _BOX if box else _WAY
        places = sorted(self.x[i] for i in alike or near)
        middle = places[(len(places) - 1) // 2 : len(places) // 2 + 1] or [self.x[item]]
        return min(middle, key=lambda x: abs(x - self.x[item])), weight

    def _spread(self, layer: int, wishes: Sequence[tuple[float, float]]) -> None:
        row = self.layers.order[layer]
        offset, offsets = 0.0, []
        for before, item in zip([None, *row], row, strict=False):
            if before is not None:
                offset += (self.sizes[before] + self.sizes[item]) / 2 + _GAP
            offsets.append(offset)
        free = isotonic([(x - off, w) for (x, w), off in zip(wishes, offsets, strict=True)])
        for item, base, off in zip(row, free, offsets, strict=True):
            self.x[item] = base + off

    def layout(self, edges: Sequence[tuple[int, int]]) -> Layout:
        """What was found, as the boxes and edges that were given."""
        boxes = tuple(
            Box(
                self.x[i] - self.sizes[i] / 2,
                self.top[self.layers.layer[i]],
                self.sizes[i],
                self.column[i],
            )
            for i in range(self.count)
        )
        routes = tuple(self._route(*edge) for edge in edges)
        most = max((len(lanes) for lanes in self.lanes), default=0)
        return Layout(self.width, self.bottom + _MARGIN + _LANE * most, boxes, routes)

    def _route(self, source: int, target: int) -> tuple[Point, ...]:
        items = self.layers.way(source, target)
        points: list[Point] = [(self.x[source], self._low(source))]
        for before, item in pairwise(items):
            if self.column[before] != self.column[item]:
                points += self._turn(before, item)
            points.append((self.x[item], self.top[self.layers.layer[item]]))
            if item != target:
                points.append((self.x[item], self._low(item)))
        return tuple(points)

    def _low(self, item: int) -> float:
        return self.top[self.layers.layer[item]] + HEIGHT

    def _turn(self, before: int, item: int) -> list[Point]:
        """Below its own column, up between the two, and in from above."""
        number = self.column[before]
        lane = self.lanes[number].index(before)
        down = self._low(before) + _MARGIN / 2 + lane * _LANE
        up = self.top[self.layers.layer[item]] - _MARGIN / 2 - lane * _LANE
        between = self.gutter[number] + lane * _LANE
        x = self.x[item]
        return [(self.x[before], down), (between, down), (between, up), (x, up)]


def isotonic(weighted: Sequence[tuple[float, float]]) -> list[float]:
    """The nondecreasing sequence with the least weighted squared distance from the values (pool
    adjacent violators)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in weighted:
        pool = (value * weight, weight, 1)
        while pools and pools[-1][0] / pools[-1][1] > pool[0] / pool[1]:
            before = pools.pop()
            pool = (pool[0] + before[0], pool[1] + before[1], pool[2] + before[2])
        pools.append(pool)
    return [total / weight for total, weight, size in pools for _ in range(size)]
