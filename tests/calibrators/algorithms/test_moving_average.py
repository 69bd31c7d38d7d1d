"""MovingAverage: the exact mean of per-sample extremes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from calibrators.algorithms.moving_average import MovingAverage
from calibrators.ranges import Range


def of(*samples: np.ndarray) -> MovingAverage:
    calibrator = MovingAverage()
    for x in samples:
        calibrator.observe(x)
    return calibrator


def test_mean_of_the_extremes_of_each_sample() -> None:
    found = of(np.array([-1.0, 4.0], "f4"), np.array([[-2.0, 0.0], [1.0, 2.0]], "f4"))
    assert found.range() == Range(-1.5, 3.0)
    assert found.reason() == "mean extremes of 2 samples, which reach from -2 to 4"


def test_sums_are_exact_where_floats_would_lose_the_small_ones() -> None:
    values = [1e30, 1.0, -1e30, 1e-40]
    found = of(*[np.array([v], "f8") for v in values]).range()
    exact = float(sum(Fraction(v) for v in values) / 4)
    assert found == Range(exact, exact)
    assert found.high == 0.25


def test_one_odd_sample_counts_as_one() -> None:
    usual = [np.array([0.0, 1.0], "f4")] * 99
    assert of(*usual, np.array([0.0, 101.0], "f4")).range() == Range(0.0, 2.0)


def test_the_first_sample_weighs_as_much_as_the_last() -> None:
    x = [np.array([v], "f4") for v in np.random.default_rng(4).standard_normal(50)]
    assert of(*x).range() == of(*x[::-1]).range()


def test_a_sample_without_elements_is_none() -> None:
    assert of(np.ones(3, "f4"), np.zeros(0, "f4")).samples == 1
