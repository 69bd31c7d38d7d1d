"""The precision map: the graph as inline SVG, its legends, and what page_map.js shows of a box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from deploy.report import map_words, units
from deploy.report.graph_layout import HEIGHT, Layout, Point, layout
from deploy.report.table import paragraph

Content = Mapping[str, Any]

_LETTER = 6.6
_ROOM = 18.0
_LONGEST = 24
# more boxes nobody follows, and the page would grow beyond what a browser opens at once
_MOST = 1200
_EMPTY = ("map", "map_words", "map_picture", "map_types", "map_errors", "map_times")


def precision_map(content: Content) -> dict[str, str]:
    """The values of page.html's map; empty for a report without a graph."""
    found = content.get("graph_map")
    if not found or not found["nodes"]:
        return dict.fromkeys(_EMPTY, "")
    counts = Counter(node["type"] for node in found["nodes"])
    if len(found["boxes"]) > _MOST:
        text = f"{_words(content, counts)} That is more than a picture shows: {_MOST:,} at most."
        return dict.fromkeys(_EMPTY, "") | {"map": "yes", "map_words": paragraph(text)}
    types = [(f"t-{key}", f"{name} ({counts[key]:,})") for key, name in _used(counts)]
    errors = any(node["sqnr_db"] is not None for node in found["nodes"])
    return {
        "map": "yes",
        "map_words": paragraph(_words(content, counts)),
        "map_picture": _Picture(content).svg(),
        "map_types": _legend("type", types),
        "map_errors": _legend("error", _steps("e", map_words.ERRORS, "no figure")) * errors,
        "map_times": _legend("time", _steps("p", map_words.TIMES, "none")),
    }


def drawn_map(content: Content) -> dict[str, Any] | None:
    """What the side panel shows of every box, and which boxes read which.

    texts: every label and value once; `rows` are pairs of numbers in it, `decisions` numbers.
    """
    found = content.get("graph_map")
    if not found or not found["nodes"] or len(found["boxes"]) > _MOST:
        return None
    words = map_words.Words(content)
    texts: dict[str, int] = {}

    def number(text: str) -> int:
        return texts.setdefault(text, len(texts))

    boxes: list[dict[str, Any]] = []
    for box in found["boxes"]:
        nodes = words.nodes(box)
        boxes.append(
            {
                "title": map_words.title(nodes),
                "nodes": [f"{node['name']} ({node['operator']})" for node in nodes],
                "rows": [(number(label), number(value)) for label, value in words.panel(nodes)],
                "decisions": [number(text) for text in words.said(nodes)],
            }
        )
    ports = [*found["inputs"], *found["outputs"]]
    boxes += [{"title": name, "nodes": [], "rows": [], "decisions": []} for name in ports]
    return {"boxes": boxes, "edges": _edges(found), "texts": list(texts)}


def _edges(found: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Between boxes; behind those of nodes come the graph's inputs and outputs."""
    box = {node: i for i, nodes in enumerate(found["boxes"]) for node in nodes}
    count = len(found["boxes"])
    edges = {(box[source], box[target]) for source, target in found["edges"]}
    for port, readers in enumerate(found["inputs"].values()):
        edges |= {(count + port, box[node]) for node in readers}
    count += len(found["inputs"])
    edges |= {(box[node], count + port) for port, node in enumerate(found["outputs"].values())}
    return sorted(edge for edge in edges if edge[0] != edge[1])


def _used(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(key, name) for key, name in map_words.TYPES.items() if counts[key]]


def _steps(letter: str, names: Sequence[str], none: str) -> list[tuple[str, str]]:
    return [*((f"{letter}{i}", name) for i, name in enumerate(names)), (f"{letter}-none", none)]


def _legend(kind: str, rows: Sequence[tuple[str, str]]) -> str:
    keys = "".join(
        f'<li><span class="key {looks}"></span>{escape(name)}</li>' for looks, name in rows
    )
    return f'<ul class="legend by-{kind}">{keys}</ul>'


def _words(content: Content, counts: Mapping[str, int]) -> str:
    found = content["graph_map"]
    named = ", ".join(f"{counts[key]:,} {name}" for key, name in _used(counts))
    told = (
        "Types are those that the vendor's list of layers tells"
        if found["listed"]
        else "Types are those that the graph asks for: no vendor's list of layers is known here"
    )
    return (
        f"The graph as the engine was made from it, {units.amount(len(found['nodes']), 'node')}: "
        f"{named}. Drawn as {len(found['boxes']):,} boxes: "
        f"what runs in one kernel, and operators in a row that only move data, share one. {told}."
    )


class _Picture:
    """One graph as SVG."""

    def __init__(self, content: Content) -> None:
        found = content["graph_map"]
        self.words = map_words.Words(content)
        self.boxes = [self.words.nodes(box) for box in found["boxes"]]
        self.ports = [*found["inputs"], *found["outputs"]]
        self.edges = _edges(found)
        self.titles = [_short(map_words.title(nodes)) for nodes in self.boxes]
        self.titles += [_short(name) for name in self.ports]
        self.layout: Layout = layout([_width(text) for text in self.titles], self.edges)

    def svg(self) -> str:
        """The picture; every box carries the classes of all three ways to colour it."""
        width, height = round(self.layout.width), round(self.layout.height)
        drawn = [self._box(i) for i in range(len(self.titles))]
        said = f"The network as a graph of {len(self.boxes)} boxes; the tables have its numbers."
        return (
            f'<svg id="graph" role="img" aria-label="{said}" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}">\n'
            f'<g class="edges">{self._paths()}</g>\n' + "\n".join(drawn) + "\n</svg>"
        )

    def _box(self, index: int) -> str:
        place = self.layout.boxes[index]
        x, y, middle = _at(place.x), _at(place.y), _at(place.centre)
        text = escape(self.titles[index])
        if index >= len(self.boxes):
            return (
                f'<g class="node port"><title>{escape(self.ports[index - len(self.boxes)])}</title>'
                f'<rect x="{x}" y="{y}" width="{_at(place.width)}" height="{HEIGHT:.0f}" rx="18"/>'
                f'<text x="{middle}" y="{_at(place.y + 22)}">{text}</text></g>'
            )
        nodes = self.boxes[index]
        figures = self.words.figures(nodes)
        below = _at(place.y + 28.5)
        texts = "".join(
            f'<text class="figure-{kind}" x="{middle}" y="{below}">{escape(figure)}</text>'
            for kind, figure in zip(("type", "error", "time"), figures, strict=True)
            if figure
        )
        told = ", ".join(filter(None, figures))
        hover = escape(f"{map_words.title(nodes)}\n{map_words.main(nodes)['name']}\n{told}")
        return (
            f'<g class="node {self.words.classes(nodes)}"><title>{hover}</title>'
            f'<rect x="{x}" y="{y}" width="{_at(place.width)}" height="{HEIGHT:.0f}" rx="5"/>'
            f'<text x="{middle}" y="{_at(place.y + 15)}">{text}</text>{texts}</g>'
        )

    def _paths(self) -> str:
        """One path per box that is read: what several readers share is drawn once."""
        ways: dict[int, set[tuple[Point, Point]]] = {}
        for (source, _), route in zip(self.edges, self.layout.routes, strict=True):
            ways.setdefault(source, set()).update(pairwise(route))
        return "".join(
            f'<path data-from="{source}" d="{_path(lines)}"/>' for source, lines in ways.items()
        )


def _path(lines: Iterable[tuple[Point, Point]]) -> str:
    """Verticals joined into as few as there are; curves that leave and arrive vertically."""
    columns: dict[str, list[tuple[float, float]]] = {}
    drawn: list[str] = []
    for (x, y), (to_x, to_y) in sorted(lines):
        if abs(x - to_x) < 0.05:
            columns.setdefault(_at(x), []).append((min(y, to_y), max(y, to_y)))
        elif abs(y - to_y) < 0.05:
            drawn.append(f"M{_at(x)} {_at(y)}H{_at(to_x)}")
        else:
            start, end, middle = _at(x), _at(to_x), _at((y + to_y) / 2)
            drawn.append(f"M{start} {_at(y)}C{start} {middle} {end} {middle} {end} {_at(to_y)}")
    for place, spans in columns.items():
        drawn += [f"M{place} {_at(top)}V{_at(low)}" for top, low in _joined(sorted(spans))]
    return "".join(drawn)


def _joined(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Intervals in order, those that touch as one."""
    found: list[tuple[float, float]] = []
    for low, high in spans:
        if found and low <= found[-1][1] + 0.05:
            low, before = found.pop()
            high = max(high, before)
        found.append((low, high))
    return found


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _width(text: str) -> float:
    return max(64.0, len(text) * _LETTER + _ROOM)


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
