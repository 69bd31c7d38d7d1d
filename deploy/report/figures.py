"""The figures as plain plotly.js dicts; a colour such as "--accent" is a variable of page.css."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from deploy.artifacts.ranges import TensorRange
from deploy.report import units

Figure = dict[str, Any]

_WORST = 5
_LINE = 34
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
        }
        for name, found in ranges.items()
    ]


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _hover(row: Mapping[str, Any]) -> str:
    """Plotly reads a little HTML in texts, and doesn't wrap lines: both are done here."""
    text = str(row["tensor"])
    lines = [escape(text[i : i + _LINE]) for i in range(0, len(text), _LINE)]
    figures = f"{units.decibel(row['sqnr_db'])}, cosine {row['cosine']:.4f}"
    return "<br>".join([f"<b>{escape(str(row['operator']))}</b> {figures}", *lines])
