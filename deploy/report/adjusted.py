"""What was done around quantizing, so that it loses less: equalization before, correction after."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.report import units
from deploy.report.summary import Content
from deploy.report.table import Row, folded, name, number, paragraph, table

Rows = Sequence[Mapping[str, Any]]

_SHOWN = 10
# stages say what they did in words; the figures to sort by are read from these, where they have one
_SHARE = re.compile(r"([\d.]+(?:e[+-]?\d+)?) ?% of")
_LARGEST = re.compile(r"\b(?:to|by) (-?[\d.]+\d(?:e[+-]?\d+)?|-?\d+)")
_CHANNELS = re.compile(r"(\d+)(?: of (\d+))? channels")
_TITLES = {
    "equalize": "Equalized before calibration",
    "correct": "Corrected after quantizing",
}


def adjusted(content: Content) -> dict[str, str]:
    """Tables of what equalization and corrections changed most; empty where there were none."""
    return {
        "equalized": _stage(content["decisions"], "equalize"),
        "corrected": _stage(content["decisions"], "correct"),
    }


def largest(reason: str) -> float:
    """The size of a change, as its reason tells it; 0 where it tells none."""
    share = _SHARE.search(reason)
    found = _LARGEST.findall(reason)
    if share is not None:
        return float(share[1])
    return max((abs(float(value)) for value in found), default=0.0)


def _stage(decisions: Rows, stage: str) -> str:
    rows = [row for row in decisions if row["stage"] == stage]
    rules = dict.fromkeys(row["rule"] for row in rows if row["outcome"] == "applied")
    parts = [_rule([row for row in rows if row["rule"] == rule], rule) for rule in rules]
    return f"<h3>{_TITLES[stage]}</h3>\n" + "\n".join(parts) if parts else ""


def _rule(rows: Rows, rule: str) -> str:
    applied = [row for row in rows if row["outcome"] == "applied"]
    order = sorted(applied, key=lambda row: -largest(row["reason"]))[:_SHOWN]
    cells: list[Row] = [
        [name(row["subject"]), number(row["reason"], largest(row["reason"]))] for row in order
    ]
    few = f"the {_SHOWN} largest changes" if len(applied) > _SHOWN else "all changes"
    whole = table(rule, ["Layer or tensor", "What"], cells, level=0)
    return paragraph(_words(rows, rule)) + folded(f"{rule}: {few}", whole)


def _words(rows: Rows, rule: str) -> str:
    applied = [row for row in rows if row["outcome"] == "applied"]
    skipped = sum(row["outcome"] == "skipped" for row in rows)
    found = [_CHANNELS.search(row["reason"]) for row in applied]
    channels = sum(int(match[1]) for match in found if match is not None)
    text = f"{rule.replace('_', ' ').capitalize()} changed {units.amount(len(applied), 'layer')}"
    if channels and all(found):
        text += f", {units.amount(channels, 'channel')} in all"
    if skipped:
        left = "was left as it was" if skipped == 1 else "were left as they were"
        text += f"; {skipped:,} {left}, with the reason under Graph"
    return f"{text}."
