"""Samples of tasks that aren't classification, as `python:task_data:<function>` datasets.

The folder is that of the environment variable ASSETS (default: ../shared/assets). Each function
yields what the model is fed, with its split; what it is judged against has a function of its own,
in the order of the test split.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from calibrators.preprocess import Preprocess

ASSETS = Path(os.environ.get("ASSETS", Path(__file__).parents[2] / "shared" / "assets"))
_HEIGHT, _READ_WIDTH, _TURN_WIDTH = 48, 480, 192
_DETECTED = Preprocess(resize=(352, 352), color="BGR")
# STS-B's development set has no split of its own: every fifth pair calibrates, the others judge
_CALIBRATES_EVERY = 5


@dataclass(frozen=True)
class Truth:
    """An image's size (width, height) and its objects: float64[N, 4] corners in pixels, int64[N]
    classes, bool[N] crowds (neither to be found nor wrong to find)."""

    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    crowds: np.ndarray


def lines() -> Iterator[dict[str, Any]]:
    """Text lines for the recognizer: x float32[3, 48, 480], padded on the right with zeros."""
    for row in _lines():
        yield {"x": _padded(_line(row), _READ_WIDTH), "split": row["split"]}


def turned_lines() -> Iterator[dict[str, Any]]:
    """Text lines for the direction classifier, every second of a split turned by 180 degrees;
    the label says so."""
    count = {"calib": 0, "test": 0}
    for row in _lines():
        turned = count[row["split"]] % 2
        count[row["split"]] += 1
        line = _line(row)
        x = _padded(line[::-1, ::-1] if turned else line, _TURN_WIDTH)
        yield {"x": x, "label": turned, "split": row["split"]}


def transcripts() -> list[str]:
    """What the recognizer has to read."""
    return [row["text"] for row in _lines() if row["split"] == "test"]


def alphabet() -> list[str]:
    """The recognizer's characters by class, the blank first."""
    path = ASSETS / "models" / "ppocrv4_en_rec_dict.txt"
    return ["", *path.read_text(encoding="utf8").rstrip("\n").split("\n"), " "]


def photographs() -> Iterator[dict[str, Any]]:
    """Images for the detector: input float32[3, 352, 352], BGR."""
    for row in _photographs():
        with Image.open(_folder("coco_tiny") / "train2017" / row["file"]) as image:
            yield {"input": _DETECTED.image(image), "split": row["split"]}


def objects() -> list[Truth]:
    """What the detector has to find."""
    found = []
    for row in _photographs():
        if row["split"] == "test":
            with Image.open(_folder("coco_tiny") / "train2017" / row["file"]) as image:
                size = image.size
            boxes = np.asarray(row["boxes"], np.float64).reshape(-1, 4)
            crowds = np.asarray(row["iscrowd"], bool)
            found.append(Truth(size, boxes, np.asarray(row["labels"], np.int64), crowds))
    return found


def sentences() -> Iterator[dict[str, Any]]:
    """Token ids, int64[S]; a pair's two sentences follow each other."""
    for number, pair in enumerate(_pairs()):
        for key in ("ids_a", "ids_b"):
            ids = np.asarray(pair[key], np.int64)
            split = "test" if number % _CALIBRATES_EVERY else "calib"
            yield {"input_ids": ids, "attention_mask": np.ones_like(ids), "split": split}


def similarities() -> np.ndarray:
    """float64[pairs]: how alike people found the two sentences, 0 to 5."""
    pairs = enumerate(_pairs())
    return np.array([pair["score"] for i, pair in pairs if i % _CALIBRATES_EVERY], np.float64)


def _folder(name: str) -> Path:
    return ASSETS / "data" / name


def _lines() -> list[dict[str, str]]:
    with (_folder("sroie_lines") / "labels.csv").open(encoding="utf8") as file:
        return list(csv.DictReader(file))


def _line(row: dict[str, str]) -> np.ndarray:
    """uint8[H, W, BGR]."""
    with Image.open(_folder("sroie_lines") / "images" / row["file"]) as image:
        return np.asarray(image.convert("RGB"))[..., ::-1]


def _padded(line: np.ndarray, width: int) -> np.ndarray:
    """float32[3, 48, width] from -1 to 1: the line at its own aspect ratio, then zeros."""
    high, wide = line.shape[:2]
    fits = min(width, -(-wide * _HEIGHT // high))
    resized = Image.fromarray(np.ascontiguousarray(line)).resize(
        (fits, _HEIGHT), Image.Resampling.BILINEAR
    )
    x = np.zeros((3, _HEIGHT, width), np.float32)
    x[:, :, :fits] = (np.asarray(resized, np.float32) / 127.5 - 1).transpose(2, 0, 1)
    return x


def _photographs() -> list[dict[str, Any]]:
    path = _folder("coco_tiny") / "train2017.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf8"))["images"]
    return rows


def _pairs() -> list[dict[str, Any]]:
    path = _folder("stsb") / "dev_500.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
