"""Figures of tasks that aren't classification, from a network's raw outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from task_data import Truth

_BLANK = 0
# the detector's: below it nothing is a candidate, and how much two boxes of a class may overlap
_LOWEST_SCORE, _MOST_OVERLAP = 0.01, 0.45
_FOUND = 0.5


def character_error_rate(
    scores: Sequence[np.ndarray], texts: Sequence[str], alphabet: Sequence[str]
) -> float:
    """% of the texts' characters to be changed; case and spaces don't count. scores: [T, classes]
    each."""
    wrong = total = 0
    for score, text in zip(scores, texts, strict=True):
        wanted = _bare(text)
        wrong += edits(_bare(greedy(score, alphabet)), wanted)
        total += len(wanted)
    return 100 * wrong / total


def greedy(scores: np.ndarray, alphabet: Sequence[str]) -> str:
    """The best class of every step of CTC, repetitions and blanks left out."""
    best = scores.argmax(-1)
    first = np.concatenate([[True], best[1:] != best[:-1]])
    return "".join(alphabet[k] for k in best[first & (best != _BLANK)])


def edits(left: str, right: str) -> int:
    """Levenshtein's distance: insertions, deletions and changes that make one text the other."""
    row = np.arange(len(right) + 1)
    letters = np.array(list(right))
    for number, letter in enumerate(left, 1):
        changed = np.minimum(row[:-1] + (letters != letter), row[1:] + 1)
        # insertions run along the row: each step to the right costs one
        row = np.concatenate([[number], changed]) - np.arange(len(row))
        row = np.minimum.accumulate(row) + np.arange(len(row))
    return int(row[-1])


def _bare(text: str) -> str:
    return "".join(text.split()).lower()


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    """The correlation of ranks; equal values share their mean rank."""
    return float(np.corrcoef(_ranks(left), _ranks(right))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, number, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[number])


def average_precision(outputs: Sequence[np.ndarray], truths: Sequence[Truth]) -> float:
    """AP50 in %: the mean over the classes that are there of the area under precision and recall,
    at 101 recalls, as COCO does it. outputs: float32[85, H, W] of FastestDet."""
    found = [detections(out, truth.size) for out, truth in zip(outputs, truths, strict=True)]
    classes = np.unique(np.concatenate([t.labels[~t.crowds] for t in truths]))
    return 100 * float(np.mean([_class_precision(int(c), found, truths) for c in classes]))


def detections(out: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes float64[N, 4] in pixels, scores and classes, the best score first."""
    height, width = out.shape[1:]
    out = out.astype(np.float64)
    classes = out[5:]
    score = (out[0] ** 0.6 * classes.max(0) ** 0.4).ravel()
    label = classes.argmax(0).ravel()
    y, x = np.mgrid[:height, :width]
    centre = np.stack([(np.tanh(out[1]) + x) / width, (np.tanh(out[2]) + y) / height], -1)
    half = 0.5 / (1 + np.exp(-np.stack([out[3], out[4]], -1)))
    corners = np.concatenate([centre - half, centre + half], -1).reshape(-1, 4)
    boxes = corners * np.array(size * 2)
    order = np.argsort(-score, kind="stable")
    order = order[score[order] > _LOWEST_SCORE]
    kept = _suppressed(boxes[order], label[order])
    return boxes[order][kept], score[order][kept], label[order][kept]


def _suppressed(boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool[N]: what no better box of the same class covers."""
    rivals = (overlaps(boxes, boxes) > _MOST_OVERLAP) & (labels[:, None] == labels)
    kept = np.ones(len(boxes), bool)
    for index in range(len(boxes)):
        if kept[index]:
            kept[index + 1 :] &= ~rivals[index, index + 1 :]
    return kept


def overlaps(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float64[L, R]: intersection over union."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (left, right)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.asarray(common / np.maximum(union, 1e-9))


def _class_precision(
    label: int,
    found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    truths: Sequence[Truth],
) -> float:
    scores: list[float] = []
    hits: list[bool] = []
    for (boxes, score, labels), truth in zip(found, truths, strict=True):
        mine, real = labels == label, truth.labels == label
        matched = _matched(boxes[mine], truth.boxes[real], truth.crowds[real])
        counts = [m is not None for m in matched]
        scores += score[mine][counts].tolist()
        hits += [bool(m) for m in matched if m is not None]
    if not scores:
        return 0.0
    there = sum(int(((t.labels == label) & ~t.crowds).sum()) for t in truths)
    right = np.cumsum(np.array(hits)[np.argsort(-np.array(scores), kind="stable")])
    precision = right / np.arange(1, len(right) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    return float(best[np.searchsorted(right / there, np.linspace(0, 1, 101))].mean())


def _matched(boxes: np.ndarray, real: np.ndarray, crowds: np.ndarray) -> list[bool | None]:
    """Per box, best first: whether it finds an object nobody found yet; None for a crowd's."""
    overlap = overlaps(boxes, real)
    taken = np.zeros(len(real), bool)
    matched: list[bool | None] = []
    for row in overlap:
        free = np.flatnonzero((row >= _FOUND) & (~taken | crowds))
        # an object of its own goes before a crowd
        order = np.lexsort((-row[free], crowds[free]))
        best = free[order[0]] if len(free) else None
        if best is not None:
            taken[best] = True
        matched.append(False if best is None else None if crowds[best] else True)
    return matched
