"""YOLO with its boxes decoded in the graph: YOLOv5 and v7, v8 and newer.

    output: float32[N, boxes, 5 + C] (with objectness) or float32[N, 4 + C, boxes] (without)

Boxes are centre and sides in pixels of the input. Which of the two it is shows in the shape: there
are more boxes than columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from deploy.artifacts.model import TensorSpec
from deploy.detection.boxes import Detections, Order, corners_of, relative
from deploy.task import Outputs
from deploy.task_options import Options, checked, output_named


class _Options(Options):
    """objectness: whether a column in front of the classes says how sure it is of an object; by
    default where boxes are rows. pixels: boxes are in pixels, not in 0..1 of the picture."""

    output: str | None = None
    objectness: bool | None = None
    pixels: bool = True
    order: Order = "cxcywh"


@dataclass(frozen=True)
class Yolo:
    """One table of boxes."""

    output: str
    options: _Options

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        chosen = checked(_Options, options, "detect")
        return cls(output_named(outputs, chosen.output, _is_table, "a table of boxes"), chosen)

    def decode(self, outputs: Outputs, size: tuple[int, int]) -> Detections:
        table = outputs[self.output][0].astype(np.float64)
        in_rows = table.shape[0] >= table.shape[1]
        if not in_rows:
            table = table.T
        given = self.options.objectness
        objectness = in_rows if given is None else given
        classes = table[:, 5:] * table[:, 4:5] if objectness else table[:, 4:]
        corners = corners_of(table[:, :4], self.options.order)
        if self.options.pixels:
            corners = relative(corners, size)
        return Detections(corners, classes.max(axis=1), classes.argmax(axis=1))


def _is_table(spec: TensorSpec) -> bool:
    return len(spec.shape) == 3 and spec.dtype.kind == "f"
