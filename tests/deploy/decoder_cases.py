"""For each decoder, outputs that hold the same two boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from task_cases import spec

from deploy.artifacts.model import TensorSpec

# height and width of the picture, and what is in it: left, top, right, bottom in its pixels
SIZE = (64, 96)
BOXES = np.array([[12.0, 20, 36, 44], [60, 8, 84, 56]])
SCORES = (0.81, 0.64)
CLASSES = (1, 0)


@dataclass(frozen=True)
class DecoderCase:
    """background: what other rows hold is no box: their score is below 0.01."""

    specs: Sequence[TensorSpec]
    options: Mapping[str, Any]
    outputs: Mapping[str, np.ndarray]


def centred(boxes: np.ndarray) -> np.ndarray:
    """Centre and sides."""
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def logit(x: np.ndarray | float) -> Any:
    """What a sigmoid turns into x."""
    return np.log(x) - np.log1p(-np.asarray(x))


def _fastestdet() -> DecoderCase:
    rows, columns = 4, 6
    out = np.full((1, 5 + 3, rows, columns), 1e-6)
    for (x, y, width, height), score, each in zip(centred(BOXES), SCORES, CLASSES, strict=True):
        column, row = x / SIZE[1] * columns, y / SIZE[0] * rows
        at = (0, slice(None), int(row), int(column))
        # objectness and class alike: a^0.6 * a^0.4 = a
        cell = np.full(8, 1e-6)
        cell[[0, 5 + each]] = score
        cell[1:3] = np.arctanh([column - int(column), row - int(row)])
        cell[3:5] = logit(np.array([width / SIZE[1], height / SIZE[0]]))
        out[at] = cell
    return DecoderCase([spec("map", 8, rows, columns)], {}, {"map": out.astype("f4")})


def _yolo() -> DecoderCase:
    table = np.zeros((1, 20, 5 + 3))
    table[0, [3, 9], :4] = centred(BOXES)
    table[0, [3, 9], 4] = 0.9
    for row, score, each in zip((3, 9), SCORES, CLASSES, strict=True):
        table[0, row, 5 + each] = score / 0.9
    return DecoderCase([spec("table", 20, 8)], {}, {"table": table.astype("f4")})


def _yolox() -> DecoderCase:
    counts = [(SIZE[0] // stride) * (SIZE[1] // stride) for stride in (16, 32)]
    table = np.zeros((1, sum(counts), 5 + 3))
    for grid, stride in enumerate((16, 32)):
        x, y, width, height = centred(BOXES)[grid] / stride
        columns = SIZE[1] // stride
        row = (counts[0] if grid else 0) + int(y) * columns + int(x)
        table[0, row, :4] = [x - int(x), y - int(y), np.log(width), np.log(height)]
        table[0, row, 4] = 0.9
        table[0, row, 5 + CLASSES[grid]] = SCORES[grid] / 0.9
    options = {"strides": "16,32"}
    return DecoderCase([spec("cells", None, 8)], options, {"cells": table.astype("f4")})


def _ssd() -> DecoderCase:
    boxes, scores = np.zeros((1, 9, 4)), np.zeros((1, 9, 4))
    scores[..., 0] = 1  # the background
    for row, box, score, each in zip((2, 7), BOXES, SCORES, CLASSES, strict=True):
        boxes[0, row] = box / [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
        scores[0, row, [0, 1 + each]] = 1 - score, score
    specs = [spec("boxes", 9, 4), spec("scores", 9, 4)]
    # both have four columns: names tell them apart
    options = {"boxes": "boxes", "scores": "scores"}
    outputs = {"boxes": boxes.astype("f4"), "scores": scores.astype("f4")}
    return DecoderCase(specs, options, outputs)


def _ready() -> DecoderCase:
    table = np.zeros((1, 5, 6))  # padded with zeros
    table[0, :2, :4], table[0, :2, 4], table[0, :2, 5] = BOXES, SCORES, CLASSES
    return DecoderCase([spec("found", 5, 6)], {}, {"found": table.astype("f4")})


# a new decoder adds its line here; the contract test fails until it does
CASES: dict[str, Callable[[], DecoderCase]] = {
    "fastestdet": _fastestdet,
    "ready": _ready,
    "ssd": _ssd,
    "yolo": _yolo,
    "yolox": _yolox,
}
