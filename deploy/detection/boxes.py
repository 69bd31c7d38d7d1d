"""Detections in a picture: how far boxes overlap, which of them are one, and which two match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np

from deploy.artifacts.model import TensorSpec
from deploy.task import Outputs

Order = Literal["xyxy", "yxyx", "xywh", "cxcywh"]
# best first, so many are looked at: the others are far below any score that counts
_MOST = 2000


@dataclass(frozen=True, eq=False)
class Detections:
    """corners: float64[N, 4], left, top, right, bottom in 0..1 of the picture; scores: float64[N];
    classes: int64[N]."""

    corners: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, index: np.ndarray) -> Detections:
        """Those of an index or a mask."""
        return Detections(self.corners[index], self.scores[index], self.classes[index])


class Decoder(Protocol):
    """Outputs to detections; `deploy/decoders/<name>.py` holds one, a class of that name."""

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        """The decoder for a model's outputs; RecipeError where the options don't fit them."""
        ...

    def decode(self, outputs: Outputs, size: tuple[int, int]) -> Detections:
        """All boxes of one sample, however unlikely. size: height and width of what was fed."""
        ...


def corners_of(boxes: np.ndarray, order: Order) -> np.ndarray:
    """float64[N, 4] as left, top, right, bottom."""
    a, b, c, d = boxes.astype(np.float64).T
    if order == "yxyx":
        columns = [b, a, d, c]
    elif order == "xywh":
        columns = [a, b, a + c, b + d]
    elif order == "cxcywh":
        columns = [a - c / 2, b - d / 2, a + c / 2, b + d / 2]
    else:
        columns = [a, b, c, d]
    return np.stack(columns, axis=1)


def relative(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels as parts of the picture."""
    height, width = size
    return np.asarray(corners / np.array([width, height, width, height], np.float64))


def overlaps(a: np.ndarray, b: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """float64[len(a), len(b)]: intersection over union; over the area of `a` where b is a crowd."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(axis=1) for x in (a, b))
    union = area_a[:, None] + area_b[None] - shared
    if crowd is not None:
        union = np.where(crowd[None], area_a[:, None], union)
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def likely(found: Detections, least: float) -> Detections:
    """Those with at least that score, the best first; what holds NaN or infinity is no box."""
    real = np.isfinite(found.scores) & np.isfinite(found.corners).all(axis=1)
    found = found.at(real & (found.scores >= least))
    return found.at(np.argsort(-found.scores, kind="stable")[:_MOST])


def suppressed(found: Detections, most_overlap: float) -> Detections:
    """Without those that overlap a better one of their class by more (greedy suppression).

    found: the best first.
    """
    kept = np.ones(len(found), bool)
    for each in np.unique(found.classes):
        own = np.flatnonzero(found.classes == each)
        over = overlaps(found.corners[own], found.corners[own]) > most_overlap
        for i in range(len(own)):
            if kept[own[i]]:
                kept[own[i + 1 :]] &= ~over[i, i + 1 :]
    return found.at(kept)


def matched(a: Detections, b: Detections, least: float) -> list[tuple[int, int, float]]:
    """Pairs (index in a, index in b, overlap) of one class that overlap by `least`.

    Each box once; the best of `a` chooses first. Both: the best first.
    """
    overlap = overlaps(a.corners, b.corners)
    overlap[a.classes[:, None] != b.classes[None]] = -1
    pairs = []
    for i in range(len(a)):
        j = int(overlap[i].argmax()) if len(b) else -1
        if j >= 0 and overlap[i, j] >= least:
            pairs.append((i, j, float(overlap[i, j])))
            overlap[:, j] = -1
    return pairs
