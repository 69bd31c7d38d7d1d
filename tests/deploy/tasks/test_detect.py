"""What is seen by both, by hand; the options; average precision is in `test_average_precision`."""

from __future__ import annotations

import numpy as np
import pytest
from task_cases import spec, terms

from calibrators.samples import Sample
from calibrators.truths import Boxes
from deploy.errors import CalibrationError, RecipeError
from deploy.tasks.detect import Detect

FEEDS = {"x": np.zeros((1, 3, 20, 40), "f4")}
SPECS = [spec("found", None, 6)]


def judge(**options: object) -> Detect:
    return Detect.of(SPECS, {"decoder": "ready", **options})


def rows(*found: tuple[float, ...]) -> dict[str, np.ndarray]:
    """left, top, right, bottom in pixels of 20x40, score, class."""
    return {"found": np.array(found, "f4").reshape(1, -1, 6)}


BOX, SHIFTED, FAR = (0, 0, 20, 10), (4, 0, 24, 10), (12, 0, 32, 10)


def agreement(exact: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> float:
    found = judge().result(terms(judge(), [Sample("s", FEEDS)], [exact], [ours]))
    return found.predictions.agreement_pct


@pytest.mark.parametrize(
    "ours, wanted",
    [
        ((*SHIFTED, 0.8, 1), 100.0),  # overlap 16 of 24
        ((*FAR, 0.8, 1), 0.0),  # 8 of 32
        ((*BOX, 0.8, 2), 0.0),  # another class
        ((*BOX, 0.2, 1), 0.0),  # nobody would see it
    ],
)
def test_boxes_match_by_class_and_overlap(ours: tuple[float, ...], wanted: float) -> None:
    assert agreement(rows((*BOX, 0.9, 1)), rows(ours)) == wanted


def test_each_box_matches_once() -> None:
    two = rows((*BOX, 0.9, 1), (20, 10, 40, 20, 0.8, 1))
    assert agreement(two, rows((*BOX, 0.9, 1))) == pytest.approx(200 / 3)


def test_nothing_seen_by_either_is_agreement() -> None:
    assert agreement(rows(), rows((*BOX, 0.1, 1))) == 100.0


def test_what_overlaps_a_better_box_of_its_class_is_one_object() -> None:
    doubled = rows((*BOX, 0.9, 1), (*SHIFTED, 0.8, 1), (*SHIFTED, 0.7, 2))
    found = judge().result(terms(judge(), [Sample("s", FEEDS)], [doubled], [doubled]))
    assert found.predictions.figures[0].engine == 2
    alone = judge(iou=1)
    found = alone.result(terms(alone, [Sample("s", FEEDS)], [doubled], [doubled]))
    assert found.predictions.figures[0].engine == 3


def test_average_precision_with_labels() -> None:
    truth = Boxes(
        np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]), np.array([1, 1]), np.zeros(2, bool)
    )
    sample = Sample("s", FEEDS, truth=truth)
    both = rows((*BOX, 0.9, 1), (20, 10, 40, 20, 0.8, 1))
    one = rows((*BOX, 0.9, 1), (20, 0, 40, 10, 0.95, 1))
    found = judge().result(terms(judge(), [sample], [both], [one])).scored
    assert found is not None and found.metric == "AP50" and found.reference_pct == 100.0
    # a wrong box first, then the right one: precision 1/2 up to half of the recalls
    assert found.engine_pct == pytest.approx(100 * 51 / 101 / 2)
    by_map = judge(metric="mAP")
    assert by_map.result(terms(by_map, [sample], [both], [one])).scored.metric == "mAP"  # type: ignore[union-attr]


def test_what_one_alone_sees_is_named() -> None:
    (term,) = terms(judge(), [Sample("s", FEEDS)], [rows((*BOX, 0.9, 1))], [rows()])
    assert not term.agrees
    assert term.found.reference_said == "1 box, alone: class 1 at 0.90"
    assert term.found.engine_said == "0 boxes"


def test_the_decoder_has_to_be_named() -> None:
    with pytest.raises(RecipeError, match=r"--task-option decoder=NAME, one of fastestdet, .*yolo"):
        Detect.of(SPECS, {})
    with pytest.raises(RecipeError, match=r"unknown decoder 'redy' \(did you mean 'ready'\?\)"):
        judge(decoder="redy")


def test_options_out_of_range() -> None:
    with pytest.raises(RecipeError, match=r"iou = '1\.5': should be less than or equal to 1"):
        judge(iou="1.5")


def test_a_sample_without_a_picture() -> None:
    flat = Sample("s", {"x": np.zeros((1, 3), "f4")})
    with pytest.raises(CalibrationError, match="sample s feeds 0 arrays of rank 4"):
        terms(judge(), [flat], [rows()], [rows()])
