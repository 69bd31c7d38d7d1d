"""The class with the largest score; the figures by hand are in `test_parity`."""

from __future__ import annotations

import numpy as np
import pytest
from task_cases import terms

from calibrators.samples import Sample
from deploy.errors import CalibrationError
from deploy.tasks.classify import Classify

FEEDS = {"x": np.zeros((1, 3), "f4")}


def scores(*best: int) -> list[dict[str, np.ndarray]]:
    """Seven scores each, the best at that place, the others descending from class 0."""
    rows = []
    for place in best:
        x = -np.arange(7, dtype="f4")[None]
        x[0, place] = 9
        rows.append({"y": x})
    return rows


def test_top_1_top_5_and_accuracy() -> None:
    samples = [Sample(f"s{i}", FEEDS, label) for i, label in enumerate([0, 6, None, 2])]
    found = Classify("y").result(
        terms(Classify("y"), samples, scores(0, 6, 3, 2), scores(0, 5, 3, 6))
    )
    # the engine's five best of the second are 5, 0, 1, 2, 3; of the fourth 6, 0, 1, 2, 3
    assert found.predictions.agreement_pct == 50.0
    assert found.predictions.figures[0].engine == 75.0
    assert found.scored is not None
    assert found.scored.samples == 3
    assert found.scored.drop == pytest.approx(200 / 3)
    assert found.scored.gate == "accuracy drop (points)"


def test_a_label_beyond_the_classes() -> None:
    with pytest.raises(CalibrationError, match="label 7, but output 'y' has 7 classes"):
        terms(Classify("y"), [Sample("s", FEEDS, 7)], scores(0), scores(0))


def test_a_class_that_the_model_gives_out_itself() -> None:
    samples = [Sample(f"s{i}", FEEDS, label) for i, label in enumerate([30, 6, None, 2])]
    before, after = (
        [{"y": np.array([number])} for number in numbers]
        for numbers in ([30, 6, 3, 2], [30, 5, 3, 6])
    )
    found = Classify("y").result(terms(Classify("y"), samples, before, after))
    assert found.predictions.agreement_pct == 50.0
    assert found.predictions.figures == ()
    assert found.scored is not None and found.scored.drop == pytest.approx(200 / 3)
