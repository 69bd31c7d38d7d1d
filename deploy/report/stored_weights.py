"""What became of every weight in a build that stores only weights as integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.report import units
from deploy.report.table import Cell, Row, folded, name, number, paragraph, table, words

Rows = Sequence[Mapping[str, Any]]

_FOLDED = 40


def stored_weights(rows: Rows) -> str:
    """Words and a table; nothing for builds that store no weights as integers."""
    if not rows:
        return ""
    columns = ["Weight", "Stored as", "#Before", "#After", "#Smaller", "How, or why not"]
    whole = table("Weights", columns, [_row(row) for row in rows], level=0)
    title = f"What became of the {units.amount(len(rows), 'weight')}"
    return paragraph(_words(rows)) + "\n" + folded(title, whole, opened=len(rows) <= _FOLDED)


def _words(rows: Rows) -> str:
    counts = Counter(row["stored"] for row in rows).most_common()
    said = ", ".join(f"{count:,} in {kind}" for kind, count in counts)
    before, after = (sum(row[key] for row in rows) for key in ("before", "after"))
    text = f"Only weights are stored as integers, activations stay float. Of the weights, {said}: "
    return f"{text}{units.size(before)} became {units.size(after)}."


def _row(row: Mapping[str, Any]) -> Row:
    before, after = row["before"], row["after"]
    gain = before / after if after else 1.0
    return [
        name(row["weight"]),
        Cell("float", looks="quiet") if row["stored"] == "float" else row["stored"],
        number(units.size(before), before),
        number(units.size(after), after),
        number("" if row["stored"] == "float" else units.ratio(gain), gain),
        words(row["reason"]),
    ]
