"""The section about precision: which engine was chosen among which, and why each layer is as it is.

Of a build that stores only weights as integers it tells what became of each weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.artifacts.ranges import Ranges
from deploy.report import units
from deploy.report.device import kind_of
from deploy.report.precision_figures import pareto, timed
from deploy.report.stored_weights import stored_weights
from deploy.report.summary import Content
from deploy.report.table import (
    Cell,
    Row,
    bullets,
    filled,
    folded,
    name,
    number,
    paragraph,
    table,
    words,
)
from deploy.target import QUANTIZED

Rows = Sequence[Mapping[str, Any]]

_FOLDED = 40
_NAMED = 4
_SAID = 10
_EMPTY = Cell("")


def precision(content: Content, ranges: Ranges | None) -> dict[str, str]:
    """Empty values where a build had nothing to choose: the page then has no such section."""
    weights = stored_weights(content["weights"])
    tried, choice = content["measured"]["tried"], content["choice"]
    if tried is None or choice is None:
        return dict.fromkeys(_PARTS, "") | {"precision": weights, "stored_weights": weights}
    noise = choice["sensitivity"]
    drawn = pareto(tried["tried"], tried["chosen"])
    return {
        "precision": "yes",
        "stored_weights": weights,
        "chosen": paragraph(chosen_words(content)),
        "tried_how": paragraph(_how(content)),
        "tried": _tried(tried["tried"], tried["chosen"], _kind(content)),
        "pareto_figure": "yes" if drawn else "",
        "sensitivity_figure": "yes" if noise else "",
        "sensitivity_words": paragraph(_noise_words(noise, kept(content), _kind(content))),
        "sensitivity": _sensitivity(noise, kept(content), _kind(content)),
        "kept_float": bullets(_reasons(content["precision_layers"])),
        "layer_reasons": _layers(content, ranges),
    }


_PARTS = (
    *("chosen", "tried_how", "tried", "pareto_figure", "sensitivity_figure"),
    *("sensitivity_words", "sensitivity", "kept_float", "layer_reasons"),
)


def chosen_words(content: Content) -> str:
    """Which engine is shipped and why, in one or two sentences; empty where nothing was chosen."""
    tried = content["measured"]["tried"]
    if tried is None:
        return ""
    reason = str(tried["reason"])
    if content["summary"]["precision"] not in QUANTIZED:
        return f"{reason[:1].upper()}{reason[1:]}."
    rows = [row for row in content["precision_layers"] if _multiplies(row)]
    count = sum(row["int8"] for row in rows)
    device = content["device"]
    # what the device itself made of them is told in its own section
    seen = device is None or not device["absent"]
    kind = _kind(content)
    run = f"run in {kind}" if seen else f"are {kind} in the graph"
    text = f"{count:,} of {units.amount(len(rows), 'layer')} {run}. "
    return f"{text}Placement “{tried['chosen']}”: {reason}."


def _kind(content: Content) -> str:
    return kind_of(content["summary"]["precision"])


def _multiplies(row: Mapping[str, Any]) -> bool:
    """A layer, not a sum or the like that was kept in float by name."""
    return row["operator"] in ("Conv", "ConvTranspose", "Gemm", "MatMul")


def kept(content: Content) -> set[str]:
    """Layers of the sensitivity that stayed float."""
    rows, choice = content["precision_layers"], content["choice"]
    if not any(row["int8"] for row in rows):
        return {row["layer"] for row in choice["sensitivity"]}
    return {row["layer"] for row in rows if not row["int8"]} | set(choice["kept_float"])


def _how(content: Content) -> str:
    rows = content["measured"]["tried"]["tried"]
    count = units.amount(len(rows), "engine")
    if not any(timed(row) is not None for row in rows):
        return f"{count} considered; none was timed to choose among them."
    if not content["choice"]["measured_here"]:
        return (
            f"{count} considered. Times are predicted from the target's roofline, not measured: "
            "this machine is not the target."
        )
    return (
        f"{count} considered. Latencies were measured on {content['measured']['machine']}, all "
        "candidates interleaved. Figures of the final loop compare with each other, those of the "
        "screening before it are rougher; the table under Speed was measured later, in a loop of "
        "its own."
    )


def _tried(rows: Rows, chosen: str, kind: str) -> str:
    columns = ["Engine", "What it is", f"#{kind} layers", "#Float layers", "#Latency", "How"]
    columns += ["#SQNR", "#Accuracy drop", "Outcome"]
    cells = [_one_tried(row, row["name"] == chosen) for row in rows]
    return table("What was tried", *filled(columns, cells))


def _one_tried(row: Mapping[str, Any], shipped: bool) -> Row:
    ms, drop = timed(row), row["drop_pct"]
    counted = row["int8_layers"] + row["float_layers"] > 0
    outcome = str(row["outcome"])
    if shipped:
        looks = "good" if outcome == "passed" else "bad"
        outcome = f"shipped, {outcome}"
    else:
        looks = "bad" if outcome.startswith("missed") else ""
    # a long sentence isn't a mark: only the word itself has a colour
    return [
        f"{row['name']} (shipped)" if shipped else str(row["name"]),
        words(str(row["description"])),
        *[
            number(f"{row[key]:,}", row[key]) if counted else _EMPTY
            for key in ("int8_layers", "float_layers")
        ],
        _EMPTY if ms is None else number(units.duration(ms), ms),
        _measured(row),
        _EMPTY if row["sqnr_db"] is None else number(units.decibel(row["sqnr_db"]), row["sqnr_db"]),
        _EMPTY if drop is None else number(f"{drop:.2f} points", drop),
        Cell(outcome, looks=looks if len(outcome) < 20 else ""),
    ]


def _measured(row: Mapping[str, Any]) -> str:
    """Where a time comes from."""
    if row["median_ms"] is None:
        return "" if row["predicted_ms"] is None else "predicted"
    loop = "final" if row["final"] else "screening"
    return f"{loop}, {units.amount(row['rounds'], 'round')}"


def _noise_words(noise: Rows, kept: set[str], kind: str) -> str:
    if not noise:
        return ""
    samples = units.amount(noise[0]["samples"], "sample")
    text = (
        f"The noise that each layer alone brings to the outputs in {kind}, on {samples}. Noise of "
        f"single layers nearly adds up: all {len(noise):,} together come to "
        f"{_decibels(noise[0]['accumulated_db'])}"
    )
    left = [row["noise_db"] for row in noise if row["layer"] not in kept]
    if left and len(left) < len(noise):
        total = 10 * math.log10(sum(10 ** (db / 10) for db in left))
        count = len(noise) - len(left)
        those = "the one" if count == 1 else f"the {count:,}"
        text += f", without {those} kept in float to {_decibels(total)}"
    return f"{text}. Corrections come on top."


def _sensitivity(noise: Rows, kept: set[str], kind: str) -> str:
    if not noise:
        return ""
    cells: list[Row] = [
        [
            name(row["layer"]),
            row["op"],
            Cell("float", looks="quiet") if row["layer"] in kept else kind,
            number(_decibels(row["noise_db"]), row["noise_db"]),
            number(_decibels(row["accumulated_db"]), row["accumulated_db"]),
            name(row["tensor"]),
        ]
        for row in noise
    ]
    columns = ["Layer", "Operator", "Shipped in", "#Alone", "#With all less noisy", "Quantizes"]
    whole = table("Noise of each layer", columns, cells, level=0)
    return folded(f"Noise of all {len(noise):,} layers", whole)


def _reasons(rows: Rows) -> list[str]:
    """The layers in float, one sentence per reason."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        if not row["int8"]:
            groups.setdefault(row["reason"], []).append(row["layer"])
    said = []
    for reason, layers in groups.items():
        if len(layers) == 1:
            said.append(f"{layers[0]} stays in float: {reason}")
            continue
        more = f" and {len(layers) - _NAMED:,} more" if len(layers) > _NAMED else ""
        named = f"{', '.join(layers[:_NAMED])}{more}"
        said.append(f"{len(layers):,} layers stay in float ({named}): {reason}")
    if len(said) > _SAID:
        said[_SAID - 1 :] = [f"{len(said) - _SAID + 1:,} more reasons, each in the table"]
    return said


def _layers(content: Content, ranges: Ranges | None) -> str:
    rows = content["precision_layers"]
    if not rows:
        return ""
    errors = {row["tensor"]: row["sqnr_db"] for row in content["layer_errors"]}
    alone = {row["layer"]: row["noise_db"] for row in content["choice"]["sensitivity"]}
    columns = ["Layer", "Operator", "Precision", "Why", "#Weights", "#Output"]
    columns += ["#Alone", "Input", "Input range", "Why that range"]
    cells: list[Row] = [
        [
            name(row["layer"]),
            row["operator"],
            _kind(content) if row["int8"] else Cell("float", looks="quiet"),
            words(row["reason"]),
            _sqnr(row["weight_sqnr_db"]),
            _sqnr(errors.get(row["output"])),
            _alone(alone.get(row["layer"])),
            name(row["input"]),
            *_range(row, ranges),
        ]
        for row in rows
    ]
    whole = table("Why each layer has its precision", *filled(columns, cells), level=0)
    short = len(rows) <= _FOLDED and any(row["int8"] for row in rows)
    return folded(f"All {units.amount(len(rows), 'layer')}", whole, opened=short)


def _range(row: Mapping[str, Any], ranges: Ranges | None) -> list[Cell | str]:
    found = ranges.tensors.get(row["input"]) if ranges is not None else None
    if found is None or not row["int8"]:
        return ["", ""]
    both = f"{units.plain(found.range.low)} to {units.plain(found.range.high)}"
    return [both, words(found.reason)]


def _sqnr(value: float | None) -> Cell:
    return _EMPTY if value is None else number(units.decibel(value), value)


def _alone(value: float | None) -> Cell:
    return _EMPTY if value is None else number(_decibels(value), value)


def _decibels(value: float) -> str:
    """Noise in dB of the signal; the ends of the scale in words."""
    if value <= -200:
        return "none"
    return "not finite" if value >= 200 else f"{value:.1f}\N{NO-BREAK SPACE}dB"
