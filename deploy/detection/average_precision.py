"""Average precision as COCO defines it (cocodataset.org/#detection-eval): per class and overlap,
precision averaged at 101 recalls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibrators.truths import Boxes
from deploy.detection.boxes import Detections, overlaps

# the overlaps at which a detection counts as found
OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
# of one class in one picture
_MOST = 100


@dataclass(frozen=True, eq=False)
class Found:
    """One picture's detections against its truth, per class.

    rows: of each class its scores: float64[N], which detections are right and which count for
    nothing, as they lie in a crowd: bool[10, N] each, by overlap. truths: how many there are.
    """

    rows: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]]
    truths: Mapping[int, int]


def found_in(detections: Detections, truth: Boxes) -> Found:
    """detections: the best first."""
    rows = {}
    for each in np.unique(np.concatenate([detections.classes, truth.classes])):
        own = detections.at(np.flatnonzero(detections.classes == each)[:_MOST])
        mine = truth.classes == each
        # crowds last: taken only where nothing else fits
        order = np.flatnonzero(mine)[np.argsort(truth.crowd[mine], kind="stable")]
        overlap = overlaps(own.corners, truth.corners[order], truth.crowd[order])
        right, void = _taken(overlap, truth.crowd[order])
        rows[int(each)] = (own.scores, right, void)
    real = truth.classes[~truth.crowd]
    classes, counts = np.unique(real, return_counts=True)
    return Found(rows, {int(c): int(n) for c, n in zip(classes, counts, strict=True)})


def _taken(overlap: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool[10, N] twice: right, and in a crowd. Each truth goes to the best detection it fits."""
    count = len(overlap)
    right, void = np.zeros((2, len(OVERLAPS), count), bool)
    for row, least in enumerate(OVERLAPS):
        free = np.ones(len(crowd), bool)
        for i in range(count):
            fits = overlap[i] >= least
            for pool in (fits & free & ~crowd, fits & crowd):
                if pool.any():
                    # of equals the last, as pycocotools does
                    masked = np.where(pool, overlap[i], -1.0)[::-1]
                    j = len(crowd) - 1 - int(masked.argmax())
                    free[j] = False
                    (void if crowd[j] else right)[row, i] = True
                    break
    return right, void


def average_precision(pictures: Sequence[Found], levels: int = len(OVERLAPS)) -> np.ndarray:
    """float64[levels]: the mean over the classes that occur, in 0..1; 0 without any.

    levels: so many of the overlaps, from 0.5 up.
    """
    totals: dict[int, int] = {}
    for one in pictures:
        for each, count in one.truths.items():
            totals[each] = totals.get(each, 0) + count
    if not totals:
        return np.zeros(levels)
    rows = [_of_class(pictures, each, totals[each], levels) for each in sorted(totals)]
    return np.asarray(np.mean(rows, axis=0))


def _of_class(pictures: Sequence[Found], each: int, total: int, levels: int) -> np.ndarray:
    rows = [one.rows[each] for one in pictures if each in one.rows]
    scores = np.concatenate([scores for scores, _, _ in rows])
    order = np.argsort(-scores, kind="stable")
    right, void = (
        np.concatenate([row[n][:levels] for row in rows], axis=1)[:, order] for n in (1, 2)
    )
    hits = np.cumsum(right, axis=1)
    # what is void neither adds a hit nor counts as one more that was tried
    precision = hits / np.maximum(np.cumsum(~void, axis=1), 1)
    # the best precision at this recall or any higher one
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return np.array([_area(h / total, p) for h, p in zip(hits, precision, strict=True)])


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Precision averaged over the 101 recalls; 0 at those that aren't reached."""
    at = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())
