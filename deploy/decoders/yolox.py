"""YOLOX as it is exported: all grids' cells in one table, boxes not yet decoded.

    output: float32[N, cells, 5 + C]: x, y, width, height, objectness, class probabilities

centre = (x, y + cell's corner) * stride, sides = exp(width, height) * stride, in pixels of the
input (arXiv 2107.08430, section 2.2). The cells of the finest grid come first, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import field_validator

from deploy.artifacts.model import TensorSpec
from deploy.detection.boxes import Detections, corners_of, relative
from deploy.errors import CalibrationError
from deploy.task import Outputs
from deploy.task_options import Options, checked, output_named


class _Options(Options):
    """strides: pixels per cell of each grid, such as 8,16,32."""

    output: str | None = None
    strides: tuple[int, ...] = (8, 16, 32)

    @field_validator("strides", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


@dataclass(frozen=True)
class Yolox:
    """One table of cells."""

    output: str
    strides: tuple[int, ...]

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        chosen = checked(_Options, options, "detect")
        name = output_named(outputs, chosen.output, _is_table, "a table of cells")
        return cls(name, chosen.strides)

    def decode(self, outputs: Outputs, size: tuple[int, int]) -> Detections:
        table = outputs[self.output][0].astype(np.float64)
        places, steps = self._cells(size)
        if len(places) != len(table):
            raise CalibrationError(
                f"output {self.output!r} has {len(table)} cells, strides "
                f"{', '.join(map(str, self.strides))} make {len(places)} of a picture of "
                f"{size[0]}x{size[1]}; give the right ones: --task-option strides=8,16,32"
            )
        centres = (table[:, :2] + places) * steps
        boxes = np.concatenate([centres, np.exp(table[:, 2:4]) * steps], axis=1)
        classes = table[:, 5:] * table[:, 4:5]
        corners = relative(corners_of(boxes, "cxcywh"), size)
        return Detections(corners, classes.max(axis=1), classes.argmax(axis=1))

    def _cells(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """float64[cells, 2] and [cells, 1]: column and row of each cell, and its stride."""
        places, steps = [], []
        for stride in self.strides:
            rows, columns = size[0] // stride, size[1] // stride
            below, right = np.mgrid[:rows, :columns]
            places.append(np.stack([right.ravel(), below.ravel()], axis=1))
            steps.append(np.full((rows * columns, 1), float(stride)))
        return np.concatenate(places).astype(np.float64), np.concatenate(steps)


def _is_table(spec: TensorSpec) -> bool:
    return len(spec.shape) == 3 and spec.dtype.kind == "f"
