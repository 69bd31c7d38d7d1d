"""A folder of images, decoded one at a time, with optional labels."""

from __future__ import annotations

import csv
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from calibrators import feeds
from calibrators.preprocess import Preprocess
from calibrators.samples import Dataset, DatasetSpec, InputSpec, Sample

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
# what Pillow raises on damaged files, depending on the format
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class _Row:
    name: str
    path: Path
    label: int | None = None
    split: str | None = None


class _Images:
    def __init__(self, rows: Sequence[_Row], spec: InputSpec, preprocess: Preprocess) -> None:
        self._rows, self._spec, self._preprocess = rows, spec, preprocess

    @property
    def splits(self) -> Sequence[str | None]:
        return [row.split for row in self._rows]

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        for row in (self._rows[i] for i in indices):
            yield Sample(row.name, {self._spec.name: self._array(row)}, row.label, row.split)

    def _array(self, row: _Row) -> np.ndarray:
        try:
            with Image.open(row.path) as img:
                img.load()
        except _BROKEN as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"unreadable image {row.path} ({reason}); replace it or take it out"
            ) from error
        return feeds.feed_image(img, self._spec, self._preprocess, str(row.path))


def accepts(uri: str) -> bool:
    """Whether uri is a folder, unless it holds .npz files and no image."""
    folder = Path(uri)
    if not folder.is_dir():
        return False
    return not any(folder.glob("*.npz")) or next(_found(folder), None) is not None


def open(uri: str, spec: DatasetSpec) -> Dataset:
    """The images below a folder, sorted by relative path; hidden files are left out.

    Without --resize and --crop, images are resized exactly to the model's height and width,
    where the model has both; the aspect ratio is then not kept.

    `labels.csv` beside them is optional. Its columns: file (relative to the folder or to its
    images/ subfolder), label (an integer >= 0) and optionally split; others are ignored. With it
    only the listed files are read.
    """
    folder = Path(uri)
    table = folder / "labels.csv"
    if table.is_file():
        rows = _listed(table)
    else:
        rows = [_Row(path.relative_to(folder).as_posix(), path) for path in _found(folder)]
    if not rows:
        raise ValueError(
            f"0 images in {table if table.is_file() else folder}; put in files named"
            f" {', '.join(sorted(_SUFFIXES))}, and list them if there is a labels.csv"
        )
    only, preprocess = feeds.image_input(spec)
    return _Images(sorted(rows, key=lambda row: row.name), only, preprocess)


def _found(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in _SUFFIXES and not hidden and path.is_file():
            yield path


def _listed(table: Path) -> list[_Row]:
    rows: dict[str, _Row] = {}
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = reader.fieldnames or []
            missing = [c for c in ("file", "label") if c not in columns]
            if missing:
                raise ValueError(
                    f"columns {', '.join(columns) or '(none)'} in {table};"
                    f" {' and '.join(missing)} missing: the first line must name file and label"
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


def _row(table: Path, line: dict[str, str | None], where: str) -> _Row:
    # by text, not resolved: links to images elsewhere are a usual way to lay out a dataset
    relative = Path(os.path.normpath(line["file"] or ""))
    if relative.is_absolute() or relative.parts[:1] == ("..",):
        raise ValueError(f"{line['file']!r} at {where} leaves the folder; list files below it")
    name = relative.as_posix()
    places = [table.parent / name, table.parent / "images" / name]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise ValueError(
            f"{line['file']!r} at {where} is no file; looked for {places[0]} and {places[1]}"
        )
    return _Row(name, path, feeds.label(line["label"] or "", where), line.get("split") or None)
