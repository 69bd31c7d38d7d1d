"""Detections that the model itself has sorted out, as with NonMaxSuppression in the graph.

    boxes: float32[M, 4] or [N, M, 4]    scores: float32[M] or [N, M]    classes: [M] or [N, M]

or one output of float32[M, 6] or [N, M, 6]: box, score, class. Rows with a score of 0 are padding.
Give iou=1 where nothing is to be suppressed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from deploy.artifacts.model import TensorSpec
from deploy.detection.boxes import Detections, Order, corners_of, relative
from deploy.errors import CalibrationError
from deploy.task import Outputs
from deploy.task_options import Options, checked, output_named

_TABLE = 6


class _Options(Options):
    """output: the one table; boxes, scores, classes: the three outputs. first_class: the number
    of the first class. pixels: boxes are in pixels, not in 0..1 of the picture."""

    output: str | None = None
    boxes: str | None = None
    scores: str | None = None
    classes: str | None = None
    first_class: int = 0
    order: Order = "xyxy"
    pixels: bool = True


@dataclass(frozen=True)
class Ready:
    """One output with everything, or three."""

    names: tuple[str, ...]
    options: _Options

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        chosen = checked(_Options, options, "detect")
        tables = [spec for spec in outputs if spec.shape and spec.shape[-1] == _TABLE]
        if chosen.output is not None or tables:
            return cls((output_named(outputs, chosen.output, _is_table, "a table"),), chosen)
        boxes = output_named(outputs, chosen.boxes, _has_boxes, "the boxes", "boxes")
        others = [spec for spec in outputs if spec.name != boxes]
        scores = output_named(others, chosen.scores, _is_row("f"), "the scores", "scores")
        others = [spec for spec in others if spec.name != scores]
        classes = output_named(others, chosen.classes, _is_row("iuf"), "the classes", "classes")
        return cls((boxes, scores, classes), chosen)

    def decode(self, outputs: Outputs, size: tuple[int, int]) -> Detections:
        if len(self.names) == 1:
            table = outputs[self.names[0]].astype(np.float64).reshape(-1, _TABLE)
            boxes, scores, classes = table[:, :4], table[:, 4], table[:, 5]
        else:
            boxes, scores, classes = (outputs[name] for name in self.names)
            boxes, scores, classes = boxes.reshape(-1, 4), scores.ravel(), classes.ravel()
            if not len(boxes) == len(scores) == len(classes):
                raise CalibrationError(
                    f"{len(boxes)} boxes, {len(scores)} scores and {len(classes)} classes in "
                    f"{', '.join(self.names)}; say which output holds what: --task-option "
                    "boxes=NAME, scores=NAME, classes=NAME"
                )
        corners = corners_of(boxes, self.options.order)
        if self.options.pixels:
            corners = relative(corners, size)
        numbers = np.rint(classes).astype(np.int64) - self.options.first_class
        real = scores > 0
        return Detections(corners[real], scores[real].astype(np.float64), numbers[real])


def _is_table(spec: TensorSpec) -> bool:
    return len(spec.shape) in (2, 3) and spec.shape[-1] == _TABLE


def _has_boxes(spec: TensorSpec) -> bool:
    return len(spec.shape) in (2, 3) and spec.shape[-1] == 4


def _is_row(kinds: str) -> Any:
    return lambda spec: len(spec.shape) in (1, 2) and spec.dtype.kind in kinds
