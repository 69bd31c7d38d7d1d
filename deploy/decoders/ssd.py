"""SSD: a box and a score per class for every prior, in two outputs.

    boxes: float32[N, priors, 4]    scores: float32[N, priors, C], after Softmax or Sigmoid

With `priors`, a .npy of float[priors, 4] (centre and sides in 0..1), boxes are offsets from them:
centre = prior's + 0.1 * offset * prior's side, side = prior's * exp(0.2 * offset) (arXiv
1512.02325, section 2.2, with the variances of its code).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from deploy.artifacts.model import TensorSpec
from deploy.detection.boxes import Detections, Order, corners_of, relative
from deploy.errors import CalibrationError, RecipeError
from deploy.task import Outputs
from deploy.task_options import Options, checked, output_named

_VARIANCES = np.array([0.1, 0.1, 0.2, 0.2])


class _Options(Options):
    """background: the class that is no object, -1 for none; classes above it move down by one.

    pixels: boxes are in pixels, not in 0..1 of the picture.
    """

    boxes: str | None = None
    scores: str | None = None
    background: int = 0
    order: Order = "xyxy"
    pixels: bool = False
    priors: str | None = None


@dataclass(frozen=True)
class Ssd:
    """Two tables with a row per prior. priors_sha256: of their content, "" without."""

    boxes: str
    scores: str
    options: _Options
    priors_sha256: str = ""
    priors: np.ndarray | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        chosen = checked(_Options, options, "detect")
        boxes = output_named(outputs, chosen.boxes, _has_boxes, "boxes of float[N, M, 4]", "boxes")
        others = [spec for spec in outputs if spec.name != boxes]
        scores = output_named(others, chosen.scores, _has_scores, "scores per class", "scores")
        if chosen.priors is None:
            return cls(boxes, scores, chosen)
        priors = _read(Path(chosen.priors))
        return cls(boxes, scores, chosen, hashlib.sha256(priors.tobytes()).hexdigest(), priors)

    def decode(self, outputs: Outputs, size: tuple[int, int]) -> Detections:
        boxes, scores = (outputs[n][0].astype(np.float64) for n in (self.boxes, self.scores))
        if self.priors is not None:
            corners = corners_of(self._moved(boxes, self.priors), "cxcywh")
        else:
            corners = corners_of(boxes, self.options.order)
            if self.options.pixels:
                corners = relative(corners, size)
        if self.options.background >= 0:
            scores = np.delete(scores, self.options.background, axis=1)
        return Detections(corners, scores.max(axis=1), scores.argmax(axis=1))

    def _moved(self, offsets: np.ndarray, priors: np.ndarray) -> np.ndarray:
        if len(offsets) != len(priors):
            raise CalibrationError(
                f"{self.options.priors}: {len(priors)} priors, output {self.boxes!r} has "
                f"{len(offsets)} boxes; give the priors of this model and input size"
            )
        offsets = offsets * _VARIANCES
        centres = priors[:, :2] + offsets[:, :2] * priors[:, 2:]
        return np.concatenate([centres, priors[:, 2:] * np.exp(offsets[:, 2:])], axis=1)


def _read(path: Path) -> np.ndarray:
    try:
        priors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RecipeError(
            f"{path}: unreadable ({error}); give a .npy of float[priors, 4]"
        ) from None
    if not isinstance(priors, np.ndarray) or priors.ndim != 2 or priors.shape[1] != 4:
        raise RecipeError(f"{path}: no array of shape [priors, 4]; save it with numpy.save")
    return priors.astype(np.float64)


def _has_boxes(spec: TensorSpec) -> bool:
    return len(spec.shape) == 3 and spec.dtype.kind == "f" and spec.shape[2] == 4


def _has_scores(spec: TensorSpec) -> bool:
    return len(spec.shape) == 3 and spec.dtype.kind == "f"
