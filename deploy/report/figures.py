"""The figures as plain plotly.js dicts; a colour such as "--accent" is a variable of page.css."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from deploy.artifacts.ranges import TensorRange
from deploy.report import units

Figure = dict[str, Any]

_WORST = 5
_LINE = 34
# markers of one graph in the roofline plot: more lie on one another and make the page large
_DRAWN = 250
# identical tensors are reported as 200 dB, which would flatten everything else
_TOP_DB = 80.0


def latency(rows: Mapping[str, Mapping[str, float]], chosen: str) -> Figure:
    """Bars to the median, the chosen engine in colour; marks at p90 and p99."""
    order = sorted(rows, key=lambda name: (name != chosen, rows[name]["median_ms"]))[::-1]
    median = [rows[name]["median_ms"] for name in order]
    bars: Figure = {
        "type": "bar",
        "orientation": "h",
        "name": "median",
        "y": order,
        "x": median,
        "width": 0.56,
        "marker": {"color": ["--accent" if name == chosen else "--bar" for name in order]},
        "text": [f" {units.ms(value)}" for value in median],
        "textposition": "inside",
        "insidetextanchor": "start",
        "textfont": {"color": ["--on-accent" if n == chosen else "--text" for n in order]},
        "hovertemplate": "%{y} median %{text}<extra></extra>",
    }
    marks = [_marks(rows, order, "p90", "line-ns"), _marks(rows, order, "p99", "diamond")]
    layout = {
        "height": 110 + 46 * len(order),
        "margin": {"l": 52, "r": 16, "t": 30, "b": 44},
        "xaxis": {
            "title": {"text": "milliseconds per call, lower is better"},
            "rangemode": "tozero",
        },
        "yaxis": {"type": "category", "showgrid": False},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
    }
    return {"data": [bars, *marks], "layout": layout}


def _marks(rows: Mapping[str, Mapping[str, float]], order: list[str], q: str, shape: str) -> Figure:
    size = 14 if shape == "line-ns" else 8
    return {
        "type": "scatter",
        "mode": "markers",
        "name": q,
        "y": order,
        "x": [rows[name][f"{q}_ms"] for name in order],
        "text": [units.ms(rows[name][f"{q}_ms"]) for name in order],
        "marker": {
            "symbol": shape,
            "size": size,
            "color": "--text",
            "line": {"width": 2 if shape == "line-ns" else 0, "color": "--text"},
        },
        "hovertemplate": f"%{{y}} {q} %{{text}}<extra></extra>",
    }


def layers(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """SQNR of every tensor in graph order, the lowest ones marked."""
    lowest = set(sorted(range(len(rows)), key=lambda i: float(rows[i]["sqnr_db"]))[:_WORST])
    shown = [min(float(row["sqnr_db"]), _TOP_DB) for row in rows]
    low = min(0.0, *shown) if min(shown) > -_TOP_DB else -_TOP_DB
    trace: Figure = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(range(1, len(rows) + 1)),
        "y": [max(value, -_TOP_DB) for value in shown],
        "line": {"color": "--accent", "width": 1.5},
        "marker": {
            "size": [10 if i in lowest else 5 for i in range(len(rows))],
            "color": ["--bad" if i in lowest else "--accent" for i in range(len(rows))],
        },
        "text": [_hover(row) for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }
    layout = {
        "height": 340,
        "margin": {"l": 52, "r": 16, "t": 10, "b": 46},
        "xaxis": {"title": {"text": "tensors in graph order"}, "range": [0, len(rows) + 1]},
        "yaxis": {
            "title": {"text": "SQNR (dB), higher is better"},
            "range": [low, max(shown) * 1.06 + 1],
            "fixedrange": True,
        },
        "showlegend": False,
    }
    return {"data": [trace], "layout": layout}


def roofline(analysed: Mapping[str, Any]) -> Figure:
    """Roofs per precision, log-log; every layer where the roofs let it be, before and after.

    A layer's marker covers as much area as the share of the predicted time it takes.
    """
    (device,) = analysed["built"]["targets"].values()
    graphs = [analysed["loaded"], analysed["built"]]
    names = ["as loaded", "as built"]
    traces = [
        _points(graph, f"{name}, {_at(graph)}", colour, symbol)
        for graph, name, colour, symbol in zip(
            graphs, names, ("--quiet", "--accent"), ("circle-open", "circle"), strict=True
        )
    ]
    xs = [x for trace in traces for x in trace["x"]] or [1.0]
    ys = [y for trace in traces for y in trace["y"]]
    slope, peaks = device["bandwidth_bytes_per_s"], device["peak_flops"]
    low = min(xs) / 2
    high = 4 * max(*xs, max(peaks.values()) / slope)
    bottom = min([low * slope, *ys])
    roofs = [_roof(peak, slope, low, high, _named(peaks, peak)) for peak in set(peaks.values())]
    layout = {
        "height": 430,
        "margin": {"l": 60, "r": 16, "t": 30, "b": 46},
        "xaxis": {
            "title": {"text": "FLOP per byte of memory traffic"},
            "type": "log",
            "range": [math.log10(low), math.log10(high)],
            "dtick": 1,
            "exponentformat": "none",
        },
        "yaxis": {
            "title": {"text": "attainable FLOP/s"},
            "type": "log",
            "dtick": 1,
            "exponentformat": "SI",
            "fixedrange": True,
            "range": [math.log10(bottom), math.log10(3 * max(peaks.values()))],
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
        "hovermode": "closest",
    }
    ordered = sorted(roofs, key=lambda roof: float(roof["y"][-1]))
    return {"data": [*ordered, *traces], "layout": layout}


def _at(graph: Mapping[str, Any]) -> str:
    (device,) = graph["targets"].values()
    return str(device["layers_at"])


def _named(peaks: Mapping[str, float], peak: float) -> str:
    """All precisions that share a roof, which would lie on one another."""
    same = ", ".join(precision for precision, rate in peaks.items() if rate == peak)
    return f"{same}  {units.scaled(peak, 'FLOP/s')}"


def _roof(peak: float, slope: float, low: float, high: float, text: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+text",
        "x": [low, peak / slope, high],
        "y": [low * slope, peak, peak],
        "text": ["", "", f"{text} "],
        "textposition": "top left",
        "textfont": {"color": "--quiet", "size": 11},
        "line": {"color": "--strong-line", "width": 1.5},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _points(graph: Mapping[str, Any], name: str, colour: str, symbol: str) -> Figure:
    """The layers that compute anything: a logarithm has no place for the others."""
    rows = [(row, at) for row in graph["layers"] for at in row["targets"].values()]
    total = sum(at["ms"] for _, at in rows) or 1.0
    longest = sorted(rows, key=lambda pair: -pair[1]["ms"])[:_DRAWN]
    shown = [(row, at) for row, at in longest if row["flops"] and at["ms"]]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [_short(row["flops"] / at["bytes"]) for row, at in shown],
        "y": [_short(1e3 * row["flops"] / at["ms"]) for row, at in shown],
        "marker": {
            "symbol": symbol,
            "size": [round(6 + 34 * math.sqrt(at["ms"] / total), 1) for _, at in shown],
            "color": colour,
            "opacity": 0.75,
            "line": {"width": 1.5 if symbol.endswith("open") else 0.5, "color": colour},
        },
        "text": [_layer_hover(row, at, at["ms"] / total) for row, at in shown],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _layer_hover(row: Mapping[str, Any], at: Mapping[str, Any], share: float) -> str:
    compute, moved = units.scaled(row["flops"], "FLOP"), units.size(at["bytes"])
    time = f"{units.duration(at['ms'])}, {units.share(share)} of the time, {at['bound']}"
    lines = [f"<b>{escape(str(row['op']))}</b> {at['precision']}", *_wrapped(str(row["name"]))]
    return "<br>".join([*lines, f"{compute}, {moved}", time])


def tensors(ranges: Mapping[str, TensorRange]) -> list[Figure]:
    """What page.js needs to draw the histogram of any tensor."""
    return [
        {
            "name": name,
            "used": [_short(found.range.low), _short(found.range.high)],
            "seen": [_short(found.seen.low), _short(found.seen.high)],
            "start": found.picture.start,
            "width": found.picture.width,
            "counts": list(found.picture.counts),
            "words": _cut(found),
        }
        for name, found in ranges.items()
    ]


def _cut(found: TensorRange) -> str:
    """What the range cuts off, in the calibrator's words where it has some."""
    if found.reason:
        return found.reason
    share = units.share(found.clipped).replace("\N{NO-BREAK SPACE}", " ")
    return f"{share} of the values cut off" if found.clipped else "nothing cut off"


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _hover(row: Mapping[str, Any]) -> str:
    """Plotly reads a little HTML in texts, and doesn't wrap lines: both are done here."""
    figures = f"{units.decibel(row['sqnr_db'])}, cosine {row['cosine']:.4f}"
    head = f"<b>{escape(str(row['operator']))}</b> {figures}"
    return "<br>".join([head, *_wrapped(str(row["tensor"]))])


def _wrapped(text: str) -> list[str]:
    return [escape(text[i : i + _LINE]) for i in range(0, len(text), _LINE)]
