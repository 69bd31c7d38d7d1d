"""HTML tables and lists: every text is escaped here, so callers pass names as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_LONG = 20


@dataclass(frozen=True)
class Cell:
    """Text; what to sort by when it is a number; and its looks: name, words, good, bad or quiet."""

    text: str
    value: float | None = None
    looks: str = ""


Row = Sequence[Cell | str]


def name(text: str) -> Cell:
    """A tensor, node or file: an identifier that somebody else chose."""
    return Cell(text, looks="name")


def words(text: str) -> Cell:
    """A sentence, which gets room to stand in few lines."""
    return Cell(text, looks="words")


def filled(columns: Sequence[str], rows: Sequence[Row]) -> tuple[list[str], list[Row]]:
    """The table without the columns in which no row says anything."""
    kept = [i for i in range(len(columns)) if any(str(getattr(r[i], "text", r[i])) for r in rows)]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def number(text: str, value: float) -> Cell:
    """A cell that shows `text` and sorts by `value`."""
    return Cell(text, value)


def table(title: str, columns: Sequence[str], rows: Sequence[Row], *, level: int = 3) -> str:
    """A titled table that scrolls inside itself; long ones get a filter box (page.js).

    A column title that starts with "#" holds numbers. No rows: nothing at all.
    """
    if not rows:
        return ""
    heads = "".join(_head(column) for column in columns)
    body = "\n".join(_row(row, columns, index) for index, row in enumerate(rows))
    long = " long" if len(rows) > _LONG else ""
    heading = f"<h{level}>{escape(title)}</h{level}>\n" if level else ""
    return (
        f'{heading}<div class="scroll{long}" tabindex="0" role="region"'
        f' aria-label="{escape(title)}">\n<table>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def folded(summary: str, content: str, *, opened: bool = False) -> str:
    """Content that opens on a click."""
    state = " open" if opened else ""
    return f"<details{state}><summary>{escape(summary)}</summary>\n{content}\n</details>"


def bullets(items: Iterable[str], looks: str = "") -> str:
    """A list, every item escaped; nothing for no items."""
    lines = "".join(f"<li>{escape(item)}</li>\n" for item in items)
    kind = f' class="{looks}"' if looks else ""
    return f"<ul{kind}>\n{lines}</ul>" if lines else ""


def paragraph(text: str, looks: str = "") -> str:
    """A paragraph, escaped; nothing for no text."""
    kind = f' class="{looks}"' if looks else ""
    return f"<p{kind}>{escape(text)}</p>" if text else ""


def _head(column: str) -> str:
    kind = ' class="number"' if column.startswith("#") else ""
    return f'<th scope="col"{kind}>{escape(column.lstrip("#"))}</th>'


def _row(row: Row, columns: Sequence[str], index: int) -> str:
    cells = "".join(_cell(cell, column) for cell, column in zip(row, columns, strict=True))
    return f'<tr data-row="{index}">{cells}</tr>'


def _cell(cell: Cell | str, column: str) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    kinds = " ".join(filter(None, ["number" if column.startswith("#") else "", cell.looks]))
    kind = f' class="{kinds}"' if kinds else ""
    value = f' data-value="{cell.value:.9g}"' if cell.value is not None else ""
    return f"<td{kind}{value}>{escape(cell.text)}</td>"
