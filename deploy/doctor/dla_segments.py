"""How a network falls apart between a DLA and the GPU: predicted, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from deploy.doctor.dla_limits import is_layer, why_not_dla
from deploy.surgery.graph import label


@dataclass(frozen=True)
class Segment:
    """Layers that run on one of the two without a change between."""

    dla: bool
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Segments:
    """parts: in the graph's order. transitions: values that go from one to the other, each a copy
    between two memory layouts. refused: per layer of the GPU, why; in the graph's order."""

    parts: tuple[Segment, ...]
    transitions: int
    refused: Mapping[str, str]

    @property
    def on_dla(self) -> int:
        """How many layers the DLA runs."""
        return sum(len(part.layers) for part in self.parts if part.dla)

    @property
    def loadables(self) -> int:
        """How many parts the DLA gets, each a program of its own."""
        return sum(part.dla for part in self.parts)


@dataclass
class _Place:
    """Where a node runs. depth: changes on the longest way to it; part: which of the parts."""

    dla: bool
    depth: int
    part: int


def dla_segments(graph: gs.Graph, generation: int, bytes_each: int) -> Segments:
    """The layers of a linked graph, shared out. generation, bytes_each: as in `why_not_dla`."""
    refused: dict[str, str] = {}
    places: dict[int, _Place] = {}
    parts: dict[int, list[gs.Node]] = {}
    crossing: set[tuple[int, bool]] = set()
    for node in graph.nodes:
        sources = [(t, places[id(p)]) for t in node.inputs for p in t.inputs if id(p) in places]
        if not is_layer(node):
            if sources and node.op in ("Identity", "Dropout"):
                places[id(node)] = sources[0][1]
            continue
        reason = why_not_dla(node, generation, bytes_each)
        if reason is not None:
            refused[label(node)] = reason
        mine = reason is None
        crossing |= {(id(tensor), mine) for tensor, place in sources if place.dla != mine}
        depth = max((place.depth + (place.dla != mine) for _, place in sources), default=0)
        joined = [p.part for _, p in sources if (p.dla, p.depth) == (mine, depth)]
        part = min(joined, default=len(places))
        parts.setdefault(part, []).append(node)
        places[id(node)] = _Place(mine, depth, part)
        for other in {number for number in joined if number != part}:
            _join(parts, places, other, part)
    order = sorted(parts, key=lambda part: (places[id(parts[part][0])].depth, part))
    segments = tuple(
        Segment(places[id(parts[part][0])].dla, tuple(label(node) for node in parts[part]))
        for part in order
    )
    return Segments(segments, len(crossing), refused)


def _join(parts: dict[int, list[gs.Node]], places: dict[int, _Place], part: int, into: int) -> None:
    """Make two parts that meet in a layer one."""
    moved = parts.pop(part)
    parts[into] += moved
    for node in moved:
        places[id(node)].part = into
