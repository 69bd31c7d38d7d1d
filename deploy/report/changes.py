"""The sections about the graph: what was done to it and why, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from deploy.artifacts.ranges import Ranges
from deploy.report import units
from deploy.report.calibration import described
from deploy.report.summary import Content
from deploy.report.table import Cell, Row, folded, name, number, paragraph, table

Decisions = Sequence[Mapping[str, Any]]


def changes(content: Content) -> dict[str, str]:
    """Statistics per stage, and every decision with its reason."""
    stages = content["graph"]
    decisions: dict[str, list[Mapping[str, Any]]] = {"applied": [], "skipped": [], "note": []}
    for row in content["decisions"]:
        decisions[row["outcome"]].append(row)
    return {
        "stages": _stages(stages),
        "qdq": "yes" if any(s["stage"] == "quantized" for s in stages) else "",
        "operators": _operators(stages),
        "applied": _applied(decisions["applied"]),
        "skipped": _skipped(decisions["skipped"]),
        "notes": "".join(paragraph(f"{r['subject']}: {r['reason']}.") for r in decisions["note"]),
    }


def reproduce(content: Content, ranges: Ranges | None) -> dict[str, str]:
    """The command, the recipe, the data, the tools and the hashes."""
    model, measured = content["model"], content["measured"]
    facts = [
        ("Model", model["name"]),
        ("SHA-256, model", model["sha256"]),
        ("Opset", str(model["opset"])),
        ("Inputs", "; ".join(model["inputs"])),
        ("Outputs", "; ".join(model["outputs"])),
        ("Created", measured["created"]),
        ("Machine", measured["machine"]),
    ]
    if ranges is not None:
        facts.insert(2, ("SHA-256, calibrated", ranges.source.model_sha256))
    recipe = [(k, _setting(v)) for k, v in content["recipe"].items() if v not in (None, {}, [])]
    data = content["data"]
    found = [described(kind.title(), data[kind]) for kind in ("calibration", "evaluation")]
    return {
        "command": escape(shlex.join(content["command"])),
        "no_command": "" if content["command"] else "yes",
        "facts": _pairs("What was built", facts),
        "recipe": _pairs("Recipe", recipe),
        "engine": _pairs("Engine, as the vendor reports it", list(content["engine"].items())),
        "tools": _pairs("Tools", list(content["tools"].items())),
        "data": table(
            "Data", ["Used for", "From", "#Samples", "Which"], [row for row in found if row]
        ),
    }


def _stages(stages: Sequence[Mapping[str, Any]]) -> str:
    cells: list[Row] = [
        [
            row["stage"],
            number(f"{row['nodes']:,}", row["nodes"]),
            number(units.scaled(row["parameters"], ""), row["parameters"]),
            number(units.size(row["weight_bytes"]), row["weight_bytes"]),
            number(units.scaled(row["flops"], "FLOP"), row["flops"]),
            number(units.size(row["bytes"]), row["bytes"]),
        ]
        for row in stages
    ]
    columns = ["After stage", "#Nodes", "#Parameters", "#Weights", "#Compute", "#Memory traffic"]
    return table("The graph after each stage", columns, cells)


def _operators(stages: Sequence[Mapping[str, Any]]) -> str:
    if not stages:
        return ""
    kinds = sorted({kind for row in stages for kind in row["operators"]})
    first, last = stages[0]["operators"], stages[-1]["operators"]
    cells: list[Row] = []
    for kind in kinds:
        counts = [row["operators"].get(kind, 0) for row in stages]
        change = last.get(kind, 0) - first.get(kind, 0)
        shown = [number(f"{n:,}", n) if n else Cell("0", 0, "quiet") for n in counts]
        cells.append([kind, *shown, number(f"{change:+,}" if change else "", change)])
    columns = ["Operator", *[f"#{row['stage']}" for row in stages], "#Change"]
    whole = table("Operators", columns, cells, level=0)
    return folded(f"Operators before and after ({len(kinds)} kinds)", whole)


def _applied(rows: Decisions) -> str:
    if not rows:
        return paragraph("Nothing was changed.")
    groups = _grouped(rows, "stage", "rule")
    return "\n".join(_group(key, found) for key, found in groups.items())


def _group(key: tuple[str, ...], rows: Decisions) -> str:
    stage, rule = key
    saved = sum(row["bytes_saved"] for row in rows)
    cells: list[Row] = [
        [name(row["subject"]), row["reason"], _saved(row["bytes_saved"])] for row in rows
    ]
    gain = f", {units.size(saved)} less memory traffic per sample" if saved > 0 else ""
    columns = ["Node or tensor", "What and why", "#Bytes saved"]
    whole = table(f"{stage}, {rule}", columns, cells, level=0)
    return folded(f"{stage}: {rule}, {len(rows):,} applied{gain}", whole)


def _saved(count: int) -> Cell:
    return number(units.size(count), count) if count else Cell("", 0)


def _skipped(rows: Decisions) -> str:
    """One row per reason, with every subject named."""
    if not rows:
        return paragraph("Nothing was skipped: no rule that matched had to decline.")
    cells: list[Row] = []
    for (stage, rule, reason), found in _grouped(rows, "stage", "rule", "reason").items():
        subjects = name(", ".join(row["subject"] for row in found))
        cells.append([stage, rule, reason, number(str(len(found)), len(found)), subjects])
    columns = ["Stage", "Rule", "Why not", "#Times", "Node or tensor"]
    return table("Skipped, with the reason", columns, cells, level=0)


def _grouped(rows: Decisions, *keys: str) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _pairs(title: str, pairs: Sequence[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>\n" for k, v in pairs)
    return f'<h3>{escape(title)}</h3>\n<dl class="pairs">\n{rows}</dl>'


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} = {_setting(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_setting(v) for v in value)
    return str(value)
