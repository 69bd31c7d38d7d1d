"""A folder of images, decoded one at a time, with optional labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from calibrators import feeds
from calibrators.pictures import Pictures, Row
from calibrators.samples import Dataset, DatasetSpec

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def accepts(uri: str) -> bool:
    """Whether uri is a folder, unless it holds .npz files and no image."""
    folder = Path(uri)
    if not folder.is_dir():
        return False
    return not any(folder.glob("*.npz")) or next(_found(folder), None) is not None


def open(uri: str, spec: DatasetSpec) -> Dataset:
    """The images below a folder, sorted by relative path; hidden files are left out.

    Without --resize and --crop, images are resized exactly to the model's height and width,
    where the model has both; the aspect ratio is then not kept, but for another resize_mode.

    `labels.csv` beside them is optional. Its columns: file (relative to the folder or to its
    images/ subfolder), optionally split, and what is known of the image: label (an integer >= 0),
    text (what is written there) or map (an image of class numbers); others are ignored. With it
    only the listed files are read.
    """
    folder = Path(uri)
    table = folder / "labels.csv"
    if table.is_file():
        rows = _listed(table)
    else:
        rows = [Row(path.relative_to(folder).as_posix(), path) for path in _found(folder)]
    if not rows:
        raise ValueError(
            f"0 images in {table if table.is_file() else folder}; put in files named"
            f" {', '.join(sorted(_SUFFIXES))}, and list them if there is a labels.csv"
        )
    if any(row.map for row in rows):
        if spec.preprocess.crop is not None:
            raise ValueError(f"label maps in {table} and a crop; they aren't cropped: use --resize")
        if spec.preprocess.pads:
            raise ValueError(
                f"label maps in {table} and resize_mode {spec.preprocess.resize_mode}; they aren't"
                " padded: use stretch"
            )
    return Pictures(sorted(rows, key=lambda row: row.name), spec)


def _found(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in _SUFFIXES and not hidden and path.is_file():
            yield path


def _listed(table: Path) -> list[Row]:
    rows: dict[str, Row] = {}
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = reader.fieldnames or []
            missing = ["file"] * ("file" not in columns)
            missing += ["label"] * (not {"label", "text", "map"} & set(columns))
            if missing:
                raise ValueError(
                    f"columns {', '.join(columns) or '(none)'} in {table};"
                    f" {' and '.join(missing)} missing: the first line must name file and label"
                    " (or text, or map)"
                )
            for line in reader:
                row = _row(table, line, f"{table} line {reader.line_num}")
                if row.name in rows:
                    raise ValueError(
                        f"{row.name!r} twice in {table}, again at line {reader.line_num};"
                        " list each file once"
                    )
                rows[row.name] = row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"unreadable {table} ({error}); save it as CSV in UTF-8") from error
    return list(rows.values())


def _row(table: Path, line: dict[str, str | None], where: str) -> Row:
    name, path = _beside(table, line["file"] or "", where)
    known = line.get("map")
    return Row(
        name,
        path,
        feeds.label(line["label"] or "", where) if "label" in line else None,
        line.get("split") or None,
        line.get("text"),
        _beside(table, known, where)[1] if known else None,
    )


def _beside(table: Path, file: str, where: str) -> tuple[str, Path]:
    """The name of a listed file, and where it lies."""
    # by text, not resolved: links to images elsewhere are a usual way to lay out a dataset
    relative = Path(os.path.normpath(file))
    if relative.is_absolute() or relative.parts[:1] == ("..",):
        raise ValueError(f"{file!r} at {where} leaves the folder; list files below it")
    name = relative.as_posix()
    places = [table.parent / name, table.parent / "images" / name]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise ValueError(f"{file!r} at {where} is no file; looked for {places[0]} and {places[1]}")
    return name, path
