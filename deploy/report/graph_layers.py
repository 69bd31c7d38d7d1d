"""In which layer of a drawing every box stands, and in which order within it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# more boxes side by side than this nobody follows
_WIDEST = 8
_SWEEPS = 8


@dataclass(frozen=True)
class Layers:
    """Items are the boxes and, behind them, the places where an edge passes a layer.

    layer: of every item. order: the items of every layer, from the left. writers, readers: the
    neighbours one layer above and below. through: per box, its places by layer: all of its edges
    share them, however many boxes read it.
    """

    layer: list[int]
    order: list[list[int]]
    writers: list[list[int]]
    readers: list[list[int]]
    through: list[dict[int, int]]

    def way(self, source: int, target: int) -> list[int]:
        """The items on the way from one box to another, both included."""
        between = range(self.layer[source] + 1, self.layer[target])
        return [source, *[self.through[source][layer] for layer in between], target]

    def crossing(self) -> list[int]:
        """How many items' edges cross the gap above every layer."""
        above = [[], *self.order[:-1]]
        return [sum(bool(self.readers[item]) for item in row) for row in above]


def layered(count: int, edges: Sequence[tuple[int, int]]) -> Layers:
    """Boxes below all that they read, few edges crossing; ValueError for edges in a circle."""
    edges = sorted({edge for edge in edges if edge[0] != edge[1]})
    layer = _layer(count, edges)
    layers = Layers(
        layer,
        [[] for _ in range(max(layer) + 1)],
        [[] for _ in range(count)],
        [[] for _ in range(count)],
        [{} for _ in range(count)],
    )
    for source, target in edges:
        _connect(layers, source, target)
    for item in range(len(layer)):
        layers.order[layer[item]].append(item)
    _sort(layers)
    return layers


def _layer(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest way from a source, but beside what reads it for what reads little itself."""
    readers: list[list[int]] = [[] for _ in range(count)]
    writers: list[list[int]] = [[] for _ in range(count)]
    for source, target in edges:
        readers[source].append(target)
        writers[target].append(source)
    order = _topological(writers, readers)
    layer, full = [0] * count, [0] * (2 * count + 1)
    for box in order:
        place = max((layer[i] + 1 for i in writers[box]), default=0)
        while full[place] >= _WIDEST:
            place += 1
        layer[box] = place
        full[place] += 1
    for box in reversed(order):
        lowest = min((layer[i] for i in readers[box]), default=0) - 1
        # moved down, its inputs' edges grow and its readers' shrink
        if lowest > layer[box] and len(writers[box]) < len(readers[box]):
            free = [place for place in range(lowest, layer[box], -1) if full[place] < _WIDEST]
            if free:
                full[layer[box]] -= 1
                layer[box] = free[0]
                full[layer[box]] += 1
    kept = {place: i for i, place in enumerate(sorted(set(layer)))}
    return [kept[place] for place in layer]


def _topological(writers: Sequence[Sequence[int]], readers: Sequence[Sequence[int]]) -> list[int]:
    waiting = [len(found) for found in writers]
    ready = [box for box, left in enumerate(waiting) if not left]
    for box in ready:  # grows while it is walked
        for reader in readers[box]:
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    if len(ready) < len(waiting):
        raise ValueError("the edges run in a circle: no box can stand below all that it reads")
    return ready


def _connect(layers: Layers, source: int, target: int) -> None:
    """An edge, through a place in every layer that it passes."""
    before = source
    for place in range(layers.layer[source] + 1, layers.layer[target]):
        item = layers.through[source].get(place)
        if item is None:
            item = len(layers.layer)
            layers.through[source][place] = item
            layers.layer.append(place)
            layers.writers.append([])
            layers.readers.append([])
            _join(layers, before, item)
        before = item
    _join(layers, before, target)


def _join(layers: Layers, source: int, target: int) -> None:
    layers.readers[source].append(target)
    layers.writers[target].append(source)


def _sort(layers: Layers) -> None:
    """Order every layer by the mean place of its neighbours, down and up; the best order stays."""
    best, fewest = [list(row) for row in layers.order], _crossings(layers)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        beside = layers.writers if down else layers.readers
        count = len(layers.order)
        for number in range(1, count) if down else range(count - 2, -1, -1):
            other = layers.order[number - 1 if down else number + 1]
            _sort_row(layers.order[number], beside, {item: i for i, item in enumerate(other)})
        crossings = _crossings(layers)
        if crossings < fewest:
            best, fewest = [list(row) for row in layers.order], crossings
    layers.order[:] = best


def _sort_row(row: list[int], beside: Sequence[Sequence[int]], place: dict[int, int]) -> None:
    mean = {
        item: sum(place[i] for i in beside[item]) / len(beside[item]) if beside[item] else None
        for item in row
    }
    # what has no neighbour there stays about where it is
    keys = {item: float(i) if mean[item] is None else mean[item] for i, item in enumerate(row)}
    row.sort(key=lambda item: keys[item] or 0.0)


def _crossings(layers: Layers) -> int:
    """How many pairs of edges cross between neighbouring layers."""
    total = 0
    for above, below in zip(layers.order, layers.order[1:], strict=False):
        place = {item: i for i, item in enumerate(below)}
        ends = [end for item in above for end in sorted(place[i] for i in layers.readers[item])]
        total += _inversions(ends, len(below))
    return total


def _inversions(ends: Sequence[int], size: int) -> int:
    """Pairs out of order, counted with a Fenwick tree."""
    tree = [0] * (size + 1)
    found = 0
    for seen, end in enumerate(ends):
        lower, index = 0, end + 1
        while index:
            lower += tree[index]
            index &= index - 1
        found += seen - lower
        index = end + 1
        while index <= size:
            tree[index] += 1
            index += index & -index
    return found
