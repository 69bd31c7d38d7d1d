"""SQNR, cosine and the rest against numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deploy.metrics import IDENTICAL_DB, Error, sqnr_db


def error(*pairs: tuple[list[float], list[float]]) -> Error:
    found = Error()
    for reference, candidate in pairs:
        found.add(np.array(reference, "f4"), np.array(candidate, "f4"))
    return found


def test_by_hand() -> None:
    found = error(([3.0, 4.0], [3.0, 4.5]))
    assert found.sqnr_db == pytest.approx(10 * math.log10(25 / 0.25))  # 20 dB
    assert found.cosine == pytest.approx((9 + 18) / (5 * math.sqrt(9 + 20.25)))
    assert (found.max_abs, found.reference_max, found.count) == (0.5, 4.0, 2)


def test_sums_run_over_all_samples() -> None:
    found = error(([3.0, 4.0], [3.0, 4.0]), ([0.0, -5.0], [1.0, -5.0]))
    assert found.sqnr_db == pytest.approx(10 * math.log10(50 / 1))
    assert (found.max_abs, found.reference_max, found.count) == (1.0, 5.0, 4)


def test_the_larger_sample_weighs_more() -> None:
    # not a mean of decibels: 0 dB on a faint sample hardly matters beside a loud one
    found = error(([0.1], [0.2]), ([10.0], [10.0]))
    assert found.sqnr_db == pytest.approx(10 * math.log10(100.01 / 0.01))


def test_identical() -> None:
    found = error(([3.0, 4.0], [3.0, 4.0]))
    assert (found.sqnr_db, found.cosine, found.max_abs) == (IDENTICAL_DB, 1.0, 0.0)


def test_scaling_shows_in_sqnr_and_not_in_cosine() -> None:
    found = error(([3.0, 4.0], [6.0, 8.0]))
    assert found.sqnr_db == pytest.approx(0.0)
    assert found.cosine == pytest.approx(1.0)


def test_opposite() -> None:
    assert error(([3.0, -4.0], [-3.0, 4.0])).cosine == pytest.approx(-1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_candidate_that_is_not_finite_is_infinitely_wrong(bad: float) -> None:
    found = error(([3.0, 4.0], [3.0, bad]), ([1.0], [1.0]))
    assert (found.sqnr_db, found.cosine, found.max_abs) == (-IDENTICAL_DB, 0.0, math.inf)
    assert found.count == 3


def test_a_reference_that_is_not_finite_proves_nothing() -> None:
    found = error(([3.0, math.nan], [3.0, 4.0]))
    assert (found.sqnr_db, found.cosine, found.max_abs) == (-IDENTICAL_DB, 0.0, math.inf)


def test_another_shape_is_infinitely_wrong() -> None:
    found = Error()
    found.add(np.ones((2, 1), "f4"), np.ones((1, 2), "f4"))
    assert (found.sqnr_db, found.cosine, found.max_abs) == (-IDENTICAL_DB, 0.0, math.inf)


def test_a_zero_signal() -> None:
    assert error(([0.0, 0.0], [0.0, 0.0])).sqnr_db == IDENTICAL_DB
    assert error(([0.0, 0.0], [0.0, 0.0])).cosine == 1.0
    assert error(([0.0, 0.0], [0.0, 1e-3])).sqnr_db == -IDENTICAL_DB
    assert error(([0.0, 0.0], [0.0, 1e-3])).cosine == 0.0


def test_empty_tensors_say_nothing() -> None:
    found = error(([3.0, 4.0], [3.0, 4.5]), ([], []))
    assert (found.sqnr_db, found.count) == (pytest.approx(20.0), 2)


def test_integers_and_float16_are_compared_in_float64() -> None:
    assert sqnr_db(np.array([100, 200], np.uint8), np.array([101, 200], np.uint8)) == pytest.approx(
        10 * math.log10(50000)
    )
    big = np.full(3, 6e4, np.float16)  # its square isn't a float16
    assert sqnr_db(big, big * np.float16(0.5)) == pytest.approx(10 * math.log10(4))
