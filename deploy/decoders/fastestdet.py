"""FastestDet: one map, per cell objectness, box and classes.

    output: float32[N, 5 + C, H, W]: objectness, x, y, width, height, class probabilities

score = objectness^0.6 * class^0.4; the centre lies tanh(x, y) cells from the cell's corner, the
sides are sigmoid(width, height) of the picture (dog-qiuqiu/FastestDet, utils/tool.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from deploy.artifacts.model import TensorSpec
from deploy.detection.boxes import Detections, corners_of
from deploy.task import Outputs
from deploy.task_options import Options, checked, output_named, sigmoid

_FIRST_CLASS = 5


class _Options(Options):
    """output: the map."""

    output: str | None = None


@dataclass(frozen=True)
class Fastestdet:
    """One map of cells."""

    output: str

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        chosen = checked(_Options, options, "detect")
        return cls(output_named(outputs, chosen.output, _is_map, "a map of float[N, 5 + C, H, W]"))

    def decode(self, outputs: Outputs, size: tuple[int, int]) -> Detections:
        cells = outputs[self.output][0].astype(np.float64)
        _, height, width = cells.shape
        below, right = np.mgrid[:height, :width]
        x, y = (np.tanh(cells[1]) + right) / width, (np.tanh(cells[2]) + below) / height
        boxes = np.stack([x, y, sigmoid(cells[3]), sigmoid(cells[4])], axis=-1).reshape(-1, 4)
        # quantization may leave a probability just below 0
        objects, classes = np.clip(cells[0], 0, None), np.clip(cells[_FIRST_CLASS:], 0, None)
        scores = (objects**0.6 * classes.max(axis=0) ** 0.4).ravel()
        return Detections(corners_of(boxes, "cxcywh"), scores, classes.argmax(axis=0).ravel())


def _is_map(spec: TensorSpec) -> bool:
    if len(spec.shape) != 4 or spec.dtype.kind != "f":
        return False
    channels = spec.shape[1]
    return channels is None or channels > _FIRST_CLASS
