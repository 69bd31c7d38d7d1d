"""The page about two bundles: the same look as a report, made of what `deploy.diff.bundles` found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from deploy.diff.first import latency_words
from deploy.report import units
from deploy.report.html import embedded, filled_page
from deploy.report.map_words import TYPES
from deploy.report.table import Cell, Row, bullets, folded, name, number, paragraph, table, words

Found = Mapping[str, Any]

_TOP_DB = 80.0
_SHOWN = 12
_SAID = 6


def render(found: Found) -> str:
    """The whole page as one HTML file; the same differences give the same page."""
    layers = found["results"]["layers"]
    drawn = {"layers": _figure(layers, _folders(found))} if layers else {}
    before, after = _folders(found)
    values = {
        "before": escape(before),
        "after": escape(after),
        "first": _first(found["first"]),
        "sides": _sides(found),
        **_results(found),
        **_decisions(found["decisions"]),
        "inputs": _inputs(found["inputs"]["changed"]),
        "layer_figure": "yes" if layers else "",
        "no_layers": "" if layers else "yes",
        "drawn_from": embedded({"figures": drawn, "tensors": [], "first": 0, "map": None}),
    }
    return filled_page("diff.html", values)


def _folders(found: Found) -> tuple[str, str]:
    return found["before"]["folder"], found["after"]["folder"]


def _first(rows: Sequence[Found]) -> str:
    """The rows as a list; what is better or worse says so in colour and in a word."""
    return f'<ul class="first">\n{"".join(map(_said, rows))}</ul>'


def _said(row: Found) -> str:
    word = {"good": "better", "bad": "worse"}.get(row["looks"])
    mark = f"<strong>{word}</strong> " if word else ""
    return f'<li class="{escape(row["looks"])}">{mark}{escape(row["text"])}</li>\n'


def _sides(found: Found) -> str:
    keys = (
        *(("Folder", "folder"), ("Model", "model"), ("Target", "target")),
        *(("Precision", "precision"), ("Status", "status"), ("Built", "created")),
        ("Machine", "machine"),
    )
    rows: list[Row] = [
        [title, str(found["before"][key]), str(found["after"][key])] for title, key in keys
    ]
    return table("The two bundles", ["", "First", "Second"], rows)


def _results(found: Found) -> dict[str, str]:
    results = found["results"]
    outputs: list[Row] = [[name(row["output"]), *_decibels(row)] for row in results["outputs"]]
    speed = results["latency"]
    size = results["size"]
    text = f"{units.size(size['before'])} and {units.size(size['after'])} ({size['what']})."
    return {
        "accuracy_words": paragraph(_accuracy(results)),
        "outputs": table("Outputs", ["Output", "#First", "#Second", "#Change"], outputs),
        "gates": _gates(results["gates"]),
        "speed_words": paragraph(_speed(speed)),
        "figures": paragraph(f"Size: {text}"),
        "layers": _layers(results["layers"]),
    }


def _accuracy(results: Found) -> str:
    task = results["accuracy"]
    if not results["comparable"]:
        return (
            "Not measured of one model on the same samples: the figures below stand side by side "
            "and don't compare."
        )
    if task is None:
        return "Accuracy was not measured in both."
    said = "more than chance explains" if task["beyond_noise"] else "within what chance explains"
    return (
        f"Accuracy {units.percent(task['before'])} and {units.percent(task['after'])}: "
        f"{task['change']:+.2f} points, {said} (± {task['error']:.2f})."
    )


def _speed(speed: Found | None) -> str:
    if speed is None:
        return "One of the two was never timed."
    text = f"Latency {latency_words(speed)}."
    if speed["times"] is not None and not speed["beyond_noise"]:
        text += " No difference that can be told from noise."
    return text


def _gates(rows: Sequence[Found]) -> str:
    cells: list[Row] = [[row["name"], _gate(row["before"]), _gate(row["after"])] for row in rows]
    return table("Gates", ["Gate", "First", "Second"], cells)


def _gate(gate: Found | None) -> Cell | str:
    if gate is None:
        return "not set"
    outcome = "met" if gate["passed"] else "MISSED"
    text = f"{outcome}: {gate['observed']:.2f}, limit {gate['limit']:g}"
    return Cell(text, looks="good" if gate["passed"] else "bad")


def _layers(rows: Sequence[Found]) -> str:
    order = sorted(rows, key=lambda row: (-abs(row["change"]), row["tensor"]))[:_SHOWN]
    cells: list[Row] = [[name(row["tensor"]), *_decibels(row)] for row in order if row["change"]]
    return table("Where the SQNR differs most", ["Tensor", "#First", "#Second", "#Change"], cells)


def _decibels(row: Found) -> list[Cell]:
    change = f"{row['change']:+.1f}\N{NO-BREAK SPACE}dB"
    return [
        number(units.decibel(row["before"]), row["before"]),
        number(units.decibel(row["after"]), row["after"]),
        number(change, row["change"]),
    ]


def _decisions(found: Found) -> dict[str, str]:
    return {
        "engines": _engines(found["engines"]),
        "types": _types(found["types"]),
        "rules": _rules(found["rules"]),
        "ranges": _ranges(found["ranges"]),
        "graphs": _graphs(found["layers"]),
    }


def _engines(engines: Sequence[Found | None]) -> str:
    said = [
        f"{which}: “{row['name']}”, {row['reason']}."
        for which, row in zip(("First", "Second"), engines, strict=True)
        if row is not None
    ]
    return bullets(said)


def _type(kind: str | None) -> str:
    return TYPES.get(kind or "", kind or "")


def _types(rows: Sequence[Found]) -> str:
    if not rows:
        return paragraph("Every layer that both have is of the same type in both.")
    cells: list[Row] = [
        [
            name(row["layer"]),
            row["operator"],
            _type(row["before"]),
            _type(row["after"]),
            words(row["reason"]),
        ]
        for row in rows
    ]
    columns = ["Layer", "Operator", "First", "Second", "Why"]
    return table("Layers of another type", columns, cells)


def _rules(rows: Sequence[Found]) -> str:
    cells: list[Row] = [
        [
            row["stage"],
            row["rule"],
            *[number(f"{count:,}", count) for count in (*row["applied"], *row["skipped"])],
            words("; ".join(_only(row))),
        ]
        for row in rows
    ]
    columns = ["Stage", "Rule", "#Applied, first", "#second", "#Skipped, first", "#second"]
    return table("What was rewritten more or less often", [*columns, "Only in one"], cells)


def _only(row: Found) -> list[str]:
    said = []
    for which, key in (("first", "only_before"), ("second", "only_after")):
        subjects = row[key]
        more = f" and {len(subjects) - _SAID:,} more" if len(subjects) > _SAID else ""
        if subjects:
            said.append(f"{which}: {', '.join(subjects[:_SAID])}{more}")
    return said


def _ranges(rows: Sequence[Found]) -> str:
    cells: list[Row] = [
        [
            name(row["tensor"]),
            *[" to ".join(units.plain(v) for v in row[key]) for key in ("before", "after")],
            number(units.share(row["moved"]), row["moved"]),
        ]
        for row in rows
    ]
    columns = ["Tensor", "First", "Second", "#Moved, of its width"]
    return table("Ranges that moved", columns, cells)


def _graphs(layers: Found) -> str:
    """Layers that only one of the two has."""
    parts = []
    for title, key in (("first", "gone"), ("second", "added")):
        if layers[key]:
            text = f"{units.amount(len(layers[key]), 'layer')} only in the {title}"
            parts.append(folded(text, bullets(layers[key])))
    return "\n".join(parts)


def _inputs(rows: Sequence[Found]) -> str:
    if not rows:
        return paragraph("The same model, data, recipe, target, machine and tools.")
    cells: list[Row] = [
        [row["what"], row["name"], name(row["before"]), name(row["after"])] for row in rows
    ]
    return table("What differs", ["Kind", "Which", "First", "Second"], cells)


def _figure(rows: Sequence[Found], folders: tuple[str, str]) -> dict[str, Any]:
    """SQNR of every tensor of both, as a plain plotly.js dict (see figures.py)."""
    low = min(0.0, *(max(row[key], -_TOP_DB) for row in rows for key in ("before", "after")))
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": escape(f"{which}: {folder}"),
            "x": list(range(1, len(rows) + 1)),
            "y": [max(min(row[key], _TOP_DB), -_TOP_DB) for row in rows],
            "line": {"color": color, "width": 1.5},
            "marker": {"color": color, "size": 5},
            "text": [f"<b>{escape(row['tensor'])}</b><br>{row[key]:.1f} dB" for row in rows],
            "hovertemplate": "%{text}<extra></extra>",
        }
        for which, key, folder, color in zip(
            ("first", "second"), ("before", "after"), folders, ("--quiet", "--accent"), strict=True
        )
    ]
    layout = {
        "height": 340,
        "margin": {"l": 52, "r": 16, "t": 34, "b": 46},
        "xaxis": {"title": {"text": "tensors in graph order"}},
        "yaxis": {
            "title": {"text": "SQNR (dB), higher is better"},
            "rangemode": "tozero" if low == 0 else "normal",
            "fixedrange": True,
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
    }
    return {"data": data, "layout": layout}
