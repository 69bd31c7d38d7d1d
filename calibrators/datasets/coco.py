"""Images with boxes around objects: a .json file as COCO has it, or one record per image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibrators import feeds
from calibrators.pictures import Pictures, Row
from calibrators.samples import Dataset, DatasetSpec
from calibrators.truths import Boxes

# file, split, and what is in the picture
_Listed = tuple[str, str | None, Boxes]

# what a record of the wrong form raises
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)


def accepts(uri: str) -> bool:
    """Whether uri is a .json file."""
    return Path(uri).suffix.lower() == ".json" and Path(uri).is_file()


def open(uri: str, spec: DatasetSpec) -> Dataset:
    """The images a .json file lists, by name, with their boxes and splits.

    Either COCO's instances (`images`, `annotations`, `categories`; classes count from 0 in the
    order of the categories' ids), or `images` alone with `file`, `width`, `height`, `boxes` (left,
    top, right, bottom in pixels), `labels` and, optional, `iscrowd` and `split`. The images lie
    beside the file, in a folder with its name or that of a split COCO's file is named after
    (instances_val2017.json: val2017), or in images/, there or one folder up. `--crop` is refused.
    """
    path = Path(uri)
    if spec.preprocess.crop is not None:
        raise ValueError(f"boxes in {path} and a crop; boxes aren't cropped: use --resize")
    feeds.check(spec)
    table = _parsed(path)
    try:
        found = list(_of_instances(table) if "annotations" in table else _of_records(table))
    except _MALFORMED as error:
        raise ValueError(
            f"{type(error).__name__}: {error}, in {path}; each image needs file, width, height,"
            " boxes and labels, or the file COCO's images, annotations and categories"
        ) from error
    if not found:
        raise ValueError(f"0 images in {path}; list at least one")
    return Pictures(_rows(path, sorted(found, key=lambda each: each[0])), spec)


def _rows(path: Path, found: Sequence[_Listed]) -> list[Row]:
    names = [file for file, _, _ in found]
    folder = _folder(path, names[0])
    rows = []
    for (file, split, boxes), before in zip(found, ["", *names], strict=False):
        if file == before:
            raise ValueError(f"{file!r} twice in {path}; list each image once")
        place = folder / file
        # listed by somebody else: nothing outside the folder is read
        if Path(file).is_absolute() or ".." in Path(file).parts or not place.is_file():
            raise ValueError(f"no {file!r} in {folder}, which {path} lists; put it there")
        rows.append(Row(file, place, split=split, boxes=boxes))
    return rows


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"unreadable {path} ({error}); write or copy it again") from error
    if not isinstance(table, Mapping) or not isinstance(table.get("images"), list):
        raise ValueError(f"no list 'images' in {path}; a .json file of boxes is laid out as COCO's")
    return table


def _of_records(table: Mapping[str, Any]) -> Iterator[_Listed]:
    for row in table["images"]:
        crowd = row.get("iscrowd") or [0] * len(row["labels"])
        boxes = _boxes(row, row["boxes"], row["labels"], crowd)
        yield str(row["file"]), row.get("split"), boxes


def _of_instances(table: Mapping[str, Any]) -> Iterator[_Listed]:
    order = sorted(row["id"] for row in table["categories"])
    number = {identity: i for i, identity in enumerate(order)}
    found: dict[Any, list[Mapping[str, Any]]] = {row["id"]: [] for row in table["images"]}
    for row in table["annotations"]:
        found[row["image_id"]].append(row)
    for row in table["images"]:
        own = found[row["id"]]
        sides = [each["bbox"] for each in own]
        corners = [[x, y, x + width, y + height] for x, y, width, height in sides]
        labels = [number[each["category_id"]] for each in own]
        crowd = [each.get("iscrowd", 0) for each in own]
        yield str(row["file_name"]), row.get("split"), _boxes(row, corners, labels, crowd)


def _boxes(
    row: Mapping[str, Any], corners: Sequence[Any], labels: Sequence[int], crowd: Sequence[int]
) -> Boxes:
    scale = np.array([row["width"], row["height"]] * 2, np.float64)
    values = np.array(corners, np.float64).reshape(-1, 4) / scale
    classes = np.array(labels, np.int64).reshape(-1)
    void = np.array(crowd, bool).reshape(-1)
    if not len(values) == len(classes) == len(void):
        raise ValueError(f"{len(values)} boxes and {len(classes)} labels of one image")
    if not np.isfinite(values).all() or (classes < 0).any():
        raise ValueError("a box or label that is no number from 0 up")
    return Boxes(values, classes, void)


def _folder(path: Path, first: str) -> Path:
    here = path.parent
    split = path.stem.rpartition("_")[2]
    names = [".", path.stem, split, "images", f"images/{split}"]
    places = [base / name for base in (here, here.parent) for name in names]
    found = next((place for place in places if (place / first).is_file()), None)
    if found is None:
        raise ValueError(
            f"no {first!r} beside {path}; looked in {', '.join(map(str, places[:4]))}: put the"
            " images there"
        )
    return found
