"""The section about calibration: every range, what was seen, and what the range cuts off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.artifacts.ranges import Ranges, TensorRange
from deploy.report import units
from deploy.report.summary import Content
from deploy.report.table import Cell, Row, folded, name, number, paragraph, table, words

_FOLDED = 40


def calibration(content: Content, ranges: Ranges | None) -> dict[str, str]:
    """Empty values when nothing was calibrated: the page then has no such section."""
    if ranges is None or not ranges.tensors:
        return {"calibration": "", "calibration_words": "", "tensors": ""}
    order = graph_order(content, ranges)
    used = _quantized(content)
    cells = [_row(key, ranges.tensors[key], key in used) for key in order]
    columns = ["Tensor", "Quantized", "#Low", "#High", "#Seen low", "#Seen high", "#Cut off", "Why"]
    return {
        "calibration": "yes",
        "calibration_words": paragraph(_words(content, ranges, used)),
        "tensors": folded(
            f"Ranges of all {len(cells):,} tensors",
            table("Ranges", columns, cells, level=0),
            opened=len(cells) <= _FOLDED,
        ),
    }


def graph_order(content: Content, ranges: Ranges) -> list[str]:
    """Tensor names as they follow each other in the graph, inputs first."""
    place = {row["tensor"]: i for i, row in enumerate(content["layer_errors"])}
    return sorted(ranges.tensors, key=lambda key: (place.get(key, -1), key))


def described(label: str, data: Mapping[str, Any] | None) -> Row | None:
    """One row about a set of samples."""
    if data is None:
        return None
    count = number(f"{data['samples']:,}", data["samples"])
    return [label, name(data["uri"]), count, data["about"]]


def _words(content: Content, ranges: Ranges, used: set[str]) -> str:
    cut = sum(found.clipped > 0 for key, found in ranges.tensors.items() if key in used)
    settings = ", ".join(f"{k} {v}" for k, v in sorted(ranges.source.settings.items()))
    count = len(used & set(ranges.tensors))
    text = (
        f"{settings}, over {units.amount(len(ranges.source.sample_sha256), 'sample')}. "
        f"{count:,} of {units.amount(len(ranges.tensors), 'tensor')} with a range "
        f"{'is' if count == 1 else 'are'} quantized; "
    )
    text += "none of these ranges cuts" if not cut else f"{cut:,} of these ranges cut"
    text += f" off values that were seen. {_from(content['data'])}"
    return text[:1].upper() + text[1:]


def _from(data: Mapping[str, Any]) -> str:
    samples, judged = data["calibration"], data["evaluation"]
    text = "The ranges came from a file; this build read no calibration samples."
    if samples is not None:
        text = f"Calibrated on {samples['uri']} ({samples['about']})."
    if judged is not None:
        text += f" Judged on {judged['uri']} ({judged['about']})."
    return text


def _quantized(content: Content) -> set[str]:
    return {
        row["subject"]
        for row in content["decisions"]
        if (row["stage"], row["rule"], row["outcome"]) == ("quantize", "activation", "applied")
    }


def _row(key: str, found: TensorRange, used: bool) -> Row:
    bounds = (found.range.low, found.range.high, found.seen.low, found.seen.high)
    return [
        name(key),
        "yes" if used else Cell("no", looks="quiet"),
        *[number(units.plain(value), value) for value in bounds],
        number(units.share(found.clipped), found.clipped),
        words(found.reason),
    ]
