"""Overlaps, orders, suppression and matching by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.detection.boxes import (
    Detections,
    Order,
    corners_of,
    likely,
    matched,
    overlaps,
    relative,
    suppressed,
)


@pytest.mark.parametrize(
    "order, row", [("xyxy", (1, 2, 5, 9)), ("yxyx", (2, 1, 9, 5)), ("xywh", (1, 2, 4, 7))]
)
def test_orders(order: Order, row: tuple[float, ...]) -> None:
    assert corners_of(np.array([row]), order).tolist() == [[1, 2, 5, 9]]
    assert corners_of(np.array([[3, 5.5, 4, 7]]), "cxcywh").tolist() == [[1, 2, 5, 9]]


def test_pixels_as_parts_of_a_picture_that_is_not_square() -> None:
    assert relative(np.array([[10.0, 10, 20, 15]]), (20, 40)).tolist() == [[0.25, 0.5, 0.5, 0.75]]


def test_overlaps_by_hand() -> None:
    a = np.array([[0.0, 0, 2, 2], [5, 5, 5, 5]])
    b = np.array([[1.0, 0, 3, 2], [0, 0, 2, 2], [5, 5, 5, 5]])
    assert overlaps(a, b) == pytest.approx(np.array([[1 / 3, 1, 0], [0, 0, 0]]))
    # a crowd: over the area of the detection
    assert overlaps(a[:1], b[:1], np.array([True]))[0, 0] == 0.5


def found(corners: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
    return Detections(np.array(corners, float).reshape(-1, 4), np.array(scores), np.array(classes))


def test_suppression_keeps_the_best_and_other_classes() -> None:
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [1, 0, 11, 10]]
    kept = suppressed(likely(found(boxes, [0.5, 0.9, 0.4, 0.3], [0, 0, 1, 1]), 0.0), 0.5)
    assert list(zip(kept.scores, kept.classes, strict=True)) == [(0.9, 0), (0.4, 1)]


def test_a_suppressed_box_suppresses_nothing() -> None:
    chain = [[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]
    kept = suppressed(found(chain, [0.9, 0.8, 0.7], [0, 0, 0]), 0.4)
    assert kept.scores.tolist() == [0.9, 0.7]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_no_box(bad: float) -> None:
    boxes = [[0, 0, 1, 1], [0, 0, bad, 1], [0, 0, 1, 1]]
    assert likely(found(boxes, [0.5, 0.9, bad], [0, 0, 0]), 0.1).scores.tolist() == [0.5]


def test_the_best_box_chooses_first() -> None:
    a = found([[0, 0, 10, 10], [1, 0, 11, 10]], [0.9, 0.8], [0, 0])
    b = found([[0, 0, 10, 10], [2, 0, 12, 10]], [0.9, 0.8], [0, 0])
    assert [(i, j) for i, j, _ in matched(a, b, 0.5)] == [(0, 0), (1, 1)]
    assert matched(a, found([], [], []), 0.5) == []
