"""Average precision by hand, and against pycocotools where that is installed."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from calibrators.truths import Boxes
from deploy.detection.average_precision import average_precision, found_in
from deploy.detection.boxes import Detections, likely

SIDE = 100


def truth(corners: list[list[float]], classes: list[int], crowd: list[bool] | None = None) -> Boxes:
    void = np.array(crowd or [False] * len(classes), bool)
    return Boxes(np.array(corners, float).reshape(-1, 4) / SIDE, np.array(classes, int), void)


def detections(corners: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
    boxes = np.array(corners, float).reshape(-1, 4) / SIDE
    return likely(Detections(boxes, np.array(scores), np.array(classes)), 0.0)


LEFT, RIGHT = [0.0, 0, 20, 20], [50.0, 50, 80, 90]


def test_by_hand() -> None:
    seen = detections([LEFT, [30, 0, 45, 9], RIGHT], [0.9, 0.8, 0.7], [0, 0, 0])
    one = found_in(seen, truth([LEFT, RIGHT], [0, 0]))
    # right, wrong, right: precision 1 up to recall 1/2, then 2/3
    assert average_precision([one])[0] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_truth_is_found_once() -> None:
    seen = detections([LEFT, LEFT], [0.9, 0.8], [0, 0])
    assert average_precision([found_in(seen, truth([LEFT, RIGHT], [0, 0]))])[0] == pytest.approx(
        51 / 101
    )


def test_the_overlap_counts() -> None:
    seen = detections([[0, 0, 20, 14]], [0.9], [0])  # 0.7 of it
    by_overlap = average_precision([found_in(seen, truth([LEFT], [0]))])
    assert by_overlap.tolist() == [1.0] * 5 + [0.0] * 5


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong() -> None:
    seen = detections([[50, 50, 60, 60], [52, 50, 62, 60], LEFT], [0.9, 0.8, 0.7], [0, 0, 0])
    known = truth([RIGHT, LEFT], [0, 0], [True, False])
    assert average_precision([found_in(seen, known)])[0] == 1.0


def test_classes_without_truth_do_not_count_and_missed_ones_do() -> None:
    seen = detections([LEFT, RIGHT], [0.9, 0.8], [0, 3])
    assert average_precision([found_in(seen, truth([LEFT], [0]))])[0] == 1.0
    assert average_precision([found_in(seen, truth([LEFT, RIGHT], [0, 1]))])[0] == 0.5


def test_no_truth_at_all() -> None:
    assert average_precision([found_in(detections([LEFT], [0.9], [0]), truth([], []))])[0] == 0.0


def pictures(seed: int) -> list[tuple[Detections, Boxes]]:
    """Truths, detections near them and others, some truths crowds, some scores equal."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(15):
        count = int(rng.integers(0, 7))
        low, sides = rng.uniform(0, 60, (count, 2)), rng.uniform(5, 40, (count, 2))
        corners = np.concatenate([low, low + sides], axis=1)
        classes = rng.integers(0, 4, count)
        known = truth(corners.tolist(), classes.tolist(), (rng.random(count) < 0.15).tolist())
        near = np.repeat(corners, 2, axis=0) + rng.normal(0, 4, (2 * count, 4))
        far = rng.uniform(0, 50, (6, 2))
        near = np.concatenate([near, np.concatenate([far, far + 20], axis=1)])
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        labels = np.concatenate([np.repeat(classes, 2), rng.integers(0, 4, 6)])
        scores = np.round(rng.random(len(near)), 2)
        made.append((detections(near.tolist(), scores.tolist(), labels.tolist()), known))
    return made


@pytest.mark.parametrize("seed", range(5))
def test_as_pycocotools_computes_it(seed: int) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    made = pictures(seed)
    ours = average_precision([found_in(seen, known) for seen, known in made])
    rows, answers = [], []
    for image, (seen, known) in enumerate(made, 1):
        sides = [(x * SIDE).tolist() for x in (known.corners, seen.corners)]
        boxes = [[[a, b, c - a, d - b] for a, b, c, d in part] for part in sides]
        for box, each, crowd in zip(boxes[0], known.classes, known.crowd, strict=True):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image,
                    "category_id": int(each) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd),
                }
            )
        for box, score, each in zip(boxes[1], seen.scores, seen.classes, strict=True):
            answer = {"image_id": image, "category_id": int(each) + 1, "bbox": box}
            answers.append({**answer, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i + 1, "width": SIDE, "height": SIDE} for i in range(len(made))],
            "annotations": rows,
            "categories": [{"id": i + 1} for i in range(4)],
            "info": {},
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(answers), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert 0.05 < ours[0] < 0.95
    assert [ours.mean(), ours[0], ours[5]] == pytest.approx(judge.stats[:3].tolist(), abs=1e-9)
