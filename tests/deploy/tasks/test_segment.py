"""Mean intersection over union by hand, of scores, of maps, and with pixels that don't count."""

from __future__ import annotations

import numpy as np
import pytest
from task_cases import spec, terms

from calibrators.samples import Sample
from calibrators.truths import LabelMap
from deploy.errors import CalibrationError, RecipeError
from deploy.tasks.segment import Segment

FEEDS = {"x": np.zeros((1, 3, 4, 6), "f4")}
TRUTH = np.array([[0, 0, 1], [2, 2, 255]])
EXACT = np.array([[0, 0, 1], [2, 1, 1]])
OURS = np.array([[0, 1, 1], [2, 1, 1]])


def judge(**options: object) -> Segment:
    return Segment.of([spec("map", 2, 3, kind="i8")], options)


def as_output(classes: np.ndarray) -> dict[str, np.ndarray]:
    return {"map": classes[None]}


def sample(truth: np.ndarray | None) -> Sample:
    return Sample("s", FEEDS, truth=None if truth is None else LabelMap(truth))


def test_by_hand() -> None:
    found = judge().result(terms(judge(), [sample(TRUTH)], [as_output(EXACT)], [as_output(OURS)]))
    # between the two: class 0 1/2, class 1 3/4, class 2 1/1
    assert found.predictions.agreement_pct == pytest.approx(100 * (1 / 2 + 3 / 4 + 1) / 3)
    assert found.predictions.figures[0].engine == pytest.approx(100 * 5 / 6)
    assert found.scored is not None
    # the last pixel doesn't count: float32 0 2/2, 1 1/2, 2 1/2; the engine 0 1/2, 1 1/3, 2 1/2
    assert found.scored.reference_pct == pytest.approx(100 * (1 + 1 / 2 + 1 / 2) / 3)
    assert found.scored.engine_pct == pytest.approx(100 * (1 / 2 + 1 / 3 + 1 / 2) / 3)
    (right,) = found.scored.figures
    assert (right.reference, right.engine) == pytest.approx((80.0, 60.0))


def test_samples_add_up_before_they_are_divided() -> None:
    rows = [(np.array([[0, 0]]), np.array([[0, 0]])), (np.array([[0, 1]]), np.array([[1, 1]]))]
    found = judge().result(
        terms(
            judge(),
            [sample(None)] * 2,
            [as_output(a) for a, _ in rows],
            [as_output(b) for _, b in rows],
        )
    )
    assert found.predictions.agreement_pct == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)


@pytest.mark.parametrize("axis, shape", [(1, (3, 2, 3)), (3, (2, 3, 3))])
def test_scores_are_turned_into_classes(axis: int, shape: tuple[int, ...]) -> None:
    scores = np.moveaxis(np.eye(3)[EXACT], -1, axis - 1)[None].astype("f4")
    task = Segment.of([spec("map", *shape)], {"axis": axis})
    (term,) = terms(task, [sample(EXACT)], [{"map": scores}], [{"map": scores}])
    assert task.result([term]).scored.reference_pct == 100.0  # type: ignore[union-attr]


def test_one_score_per_pixel_is_compared_with_a_threshold() -> None:
    task = Segment.of([spec("map", 1, 2, 3)], {"threshold": 0.3})
    scores = np.array([[[[0.2, 0.4, 0.9], [0.1, 0.31, 0.3]]]], "f4")
    wanted = np.array([[0, 1, 1], [0, 1, 0]])
    (term,) = terms(task, [sample(wanted)], [{"map": scores}], [{"map": scores}])
    assert task.result([term]).scored.reference_pct == 100.0  # type: ignore[union-attr]


def test_a_larger_label_map_is_read_at_the_outputs_pixels() -> None:
    large = np.kron(EXACT, np.ones((2, 4), np.int64))
    (term,) = terms(judge(), [sample(large)], [as_output(EXACT)], [as_output(EXACT)])
    assert judge().result([term]).scored.reference_pct == 100.0  # type: ignore[union-attr]


def test_a_class_below_zero_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"class -1 in its label map; .*ignore=N"):
        terms(judge(), [sample(EXACT - 1)], [as_output(EXACT)], [as_output(EXACT)])
    with pytest.raises(CalibrationError, match="output 'map' holds class -1"):
        terms(judge(), [sample(None)], [as_output(EXACT - 1)], [as_output(EXACT)])


def test_two_maps_need_a_name() -> None:
    two = [spec("coarse", 2, 3, kind="i8"), spec("fine", 2, 3, kind="i8")]
    with pytest.raises(RecipeError, match=r"2 outputs could hold a map.*output=coarse"):
        Segment.of(two, {})
    assert Segment.of(two, {"output": "fine"}).output == "fine"
