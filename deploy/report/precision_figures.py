"""The figures of the section about precision, as plain plotly.js dicts (see figures.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

from deploy.report import units
from deploy.report.figures import Figure

Rows = Sequence[Mapping[str, Any]]

_NAMED = 24
_NOISIEST = 20
# bars start here at the least: a layer that brings no noise at all would flatten the others
_SPAN_DB = 70.0


def timed(row: Mapping[str, Any]) -> float | None:
    """Milliseconds of an engine that was tried, measured before predicted."""
    found = row["median_ms"] if row["median_ms"] is not None else row["predicted_ms"]
    return None if found is None else float(found)


def pareto(tried: Rows, chosen: str) -> Figure | None:
    """Latency against SQNR of what has both, the shipped engine in colour; None for one point.

    A dashed line joins those that nothing beats in both.
    """
    rows = [row for row in tried if timed(row) is not None and row["sqnr_db"] is not None]
    if len(rows) < 2:
        return None
    rows.sort(key=lambda row: (timed(row), -row["sqnr_db"]))
    best = [r for i, r in enumerate(rows) if all(r["sqnr_db"] > o["sqnr_db"] for o in rows[:i])]
    shipped = [row["name"] == chosen for row in rows]
    points = {
        "type": "scatter",
        "mode": "markers+text",
        **_places(rows),
        "text": [escape(_short(row["name"])) for row in rows],
        "hovertext": [_tried(row) for row in rows],
        "textposition": ["bottom center" if i % 2 else "top center" for i in range(len(rows))],
        "textfont": {"color": "--text", "size": 11},
        "cliponaxis": False,
        "marker": {
            "size": [15 if yes else 10 for yes in shipped],
            "color": ["--accent" if yes else "--quiet" for yes in shipped],
            "symbol": ["circle" if row["final"] else "circle-open" for row in rows],
            "line": {"width": 1.5},
        },
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        **_places(best),
        "line": {"color": "--strong-line", "width": 1.5, "dash": "dash"},
        "hoverinfo": "skip",
    }
    measured = all(row["median_ms"] is not None for row in rows)
    return {"data": [line, points], "layout": _pareto_layout(rows, measured)}


def _pareto_layout(rows: Rows, measured: bool) -> Figure:
    how = "measured" if measured else "predicted"
    xs, ys = [timed(row) or 0.0 for row in rows], [row["sqnr_db"] for row in rows]
    return {
        "height": 340,
        "margin": {"l": 52, "r": 24, "t": 16, "b": 46},
        "xaxis": {
            "title": {"text": f"latency (ms), {how}, lower is better"},
            "range": _padded(xs, 0.18),
        },
        "yaxis": {
            "title": {"text": "SQNR (dB), higher is better"},
            "range": _padded(ys, 0.2),
            "fixedrange": True,
        },
        "showlegend": False,
        "hovermode": "closest",
    }


def _places(rows: Rows) -> dict[str, list[float]]:
    return {"x": [timed(r) or 0.0 for r in rows], "y": [float(r["sqnr_db"]) for r in rows]}


def _padded(values: Sequence[float], part: float) -> list[float]:
    low, high = min(values), max(values)
    room = part * (high - low) or max(abs(high) * 0.1, 0.1)
    return [low - room, high + room]


def _tried(row: Mapping[str, Any]) -> str:
    drop = "" if row["drop_pct"] is None else f", drop {row['drop_pct']:.2f} points"
    figures = f"{units.duration(timed(row) or 0.0)}, {units.decibel(row['sqnr_db'])}{drop}"
    return f"<b>{escape(str(row['name']))}</b><br>{figures}<br>{escape(str(row['outcome']))}"


def sensitivity(layers: Rows, kept: Collection[str]) -> Figure:
    """Noise of each of the noisiest layers alone, and of all that are no noisier together."""
    shown = list(layers)[:_NOISIEST]
    if all(row["layer"] in kept for row in layers):
        kept = ()  # no engine in 8 bits was shipped: nothing to tell apart
    floor = _floor(shown)
    bars = [
        _bars(shown, floor, "alone in 8 bits", "--bar", lambda name: name not in kept),
        _bars(shown, floor, "alone, kept in float", "--good", lambda name: name in kept),
    ]
    together = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "with all less noisy",
        "x": [max(row["accumulated_db"], floor) for row in shown],
        "y": list(range(len(shown))),
        "line": {"color": "--accent", "width": 1.5},
        "marker": {"color": "--accent", "size": 5},
        "text": [_noise(row, "accumulated_db") for row in shown],
        "hovertemplate": "%{text}<extra></extra>",
    }
    layout = {
        "height": 120 + 22 * len(shown),
        "margin": {"l": 60, "r": 16, "t": 30, "b": 46},
        "barmode": "overlay",
        "bargap": 0.3,
        "xaxis": {"title": {"text": "noise (dB of the signal)"}},
        "yaxis": {
            "tickvals": list(range(len(shown))),
            "ticktext": [escape(_short(_bare(row["layer"], row["op"]))) for row in shown],
            "range": [len(shown) - 0.4, -0.6],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
        "showlegend": True,
    }
    return {"data": [*[b for b in bars if b["y"]], together], "layout": layout}


def _bars(rows: Rows, floor: float, title: str, colour: str, wanted: Any) -> Figure:
    picked = [i for i, row in enumerate(rows) if wanted(row["layer"])]
    return {
        "type": "bar",
        "orientation": "h",
        "name": title,
        "base": floor,
        "y": picked,
        "x": [max(rows[i]["noise_db"] - floor, 0.0) for i in picked],
        "marker": {"color": colour},
        "text": [_noise(rows[i], "noise_db") for i in picked],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }


def _floor(rows: Rows) -> float:
    """Where the bars start, a little below the quietest layer that is drawn."""
    loudest = max(float(max(row["noise_db"], row["accumulated_db"])) for row in rows)
    return max(min(float(row["noise_db"]) for row in rows), loudest - _SPAN_DB) - 3.0


def _noise(row: Mapping[str, Any], key: str) -> str:
    who = "alone" if key == "noise_db" else "with all less noisy ones"
    return f"<b>{escape(str(row['op']))}</b> {escape(str(row['layer']))}<br>{row[key]:.1f} dB {who}"


def _bare(layer: str, operator: str) -> str:
    """A layer's path without what it repeats: "/a/a.1/conv/conv.0/Conv" is "a.1/conv.0"."""
    parts = [part for part in layer.split("/") if part]
    if len(parts) > 1 and parts[-1] == operator:
        parts.pop()
    pairs = zip(parts, [*parts[1:], ""], strict=True)
    return "/".join(part for part, behind in pairs if not behind.startswith(f"{part}.")) or layer


def _short(text: str) -> str:
    """The end of a long name, which tells layers apart."""
    return text if len(text) <= _NAMED else f"…{text[1 - _NAMED :]}"
