"""Neighbours and Spearman's correlation by hand, and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from task_cases import spec, terms

from calibrators.samples import Sample
from calibrators.truths import PairScore
from deploy.errors import RecipeError
from deploy.tasks.embed import Embed, spearman

FEEDS = {"x": np.zeros((1, 3), "f4")}
TASK = Embed.of([spec("v", 2)], {})


def vectors(*degrees: float) -> list[dict[str, np.ndarray]]:
    """Vectors in the plane, of any length, at these angles."""
    rad = np.radians(degrees)
    length = 1 + np.arange(len(degrees))
    return [
        {"v": (n * np.array([[np.cos(x), np.sin(x)]])).astype("f4")}
        for n, x in zip(length, rad, strict=True)
    ]


def samples(*truths: PairScore | None) -> list[Sample]:
    return [Sample(f"s{i}", FEEDS, truth=truth) for i, truth in enumerate(truths)]


def test_neighbours_by_hand() -> None:
    # of 0, 10, 30, 100 the nearest are 10, 0, 10, 30; after the third moves to 80: 10, 0, 100, 80
    found = TASK.result(
        terms(TASK, samples(*[None] * 4), vectors(0, 10, 30, 100), vectors(0, 10, 80, 100))
    )
    assert found.predictions.agreement_pct == 75.0
    assert found.scored is None
    mean, least = found.predictions.figures
    assert mean.engine == pytest.approx((3 + np.cos(np.radians(50))) / 4, abs=1e-6)
    assert least.engine == pytest.approx(np.cos(np.radians(50)), abs=1e-6)


def test_neighbours_as_near_to_rounding_are_as_good() -> None:
    # the nearest of the first is the second by 2e-7, in the engine the third
    exact, turned = vectors(0, 10, 10.00005, 50), vectors(0, 10.001, 10, 50)
    found = TASK.result(terms(TASK, samples(*[None] * 4), exact, turned))
    assert found.predictions.agreement_pct == 100.0


def test_a_single_sample_has_no_neighbour() -> None:
    found = TASK.result(terms(TASK, samples(None), vectors(0), vectors(90)))
    assert found.predictions.agreement_pct == 100.0


def test_pairs_are_put_together_wherever_they_stand() -> None:
    # cosines fall with the angle: 10, 40, 80 degrees apart
    truths = [*(PairScore(n, s) for n, s in (("a", 3.0), ("b", 2.0), ("c", 1.0)))]
    rows = samples(truths[0], truths[1], truths[2], None, truths[2], truths[0], truths[1])
    exact = vectors(0, 0, 0, 33, 80, 10, 40)
    swapped = vectors(0, 0, 0, 33, 10, 80, 40)
    found = TASK.result(terms(TASK, rows, exact, swapped)).scored
    assert found is not None
    assert (found.samples, found.reference_pct, found.engine_pct) == (3, 100.0, -100.0)
    assert (found.drop, found.unit) == (200.0, "")
    assert "100 x Spearman correlation: fp32 100.00, engine -100.00, drop 200.00" in found.line()
    assert "points on 3 pairs" in found.line()


def test_a_pair_whose_other_half_is_missing_does_not_count() -> None:
    rows = samples(PairScore("a", 1.0), PairScore("b", 2.0), PairScore("b", 2.0))
    assert TASK.result(terms(TASK, rows, vectors(0, 1, 2), vectors(0, 1, 2))).scored is None


def test_an_engine_without_values() -> None:
    broken = [{"v": np.full((1, 2), np.nan, "f4")}] * 2
    found = TASK.result(terms(TASK, samples(None, None), vectors(0, 50), broken))
    assert found.predictions.figures[0].engine == 0.0


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_as_scipy_has_it(ties: bool) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 40))
    if ties:
        a, b = np.round(a), np.round(b)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_spearman_of_what_does_not_vary() -> None:
    assert spearman(np.ones(4), np.arange(4)) == 0.0


def test_two_vectors_need_a_name() -> None:
    with pytest.raises(RecipeError, match="2 outputs could hold a vector per sample"):
        Embed.of([spec("a", 2), spec("b", 2)], {})
