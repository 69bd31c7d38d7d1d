"""Percentile: what it keeps, counted on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators.algorithms.percentile import Percentile
from calibrators.ranges import Range


def of(x: np.ndarray, kept_pct: float = 99.99) -> Percentile:
    calibrator = Percentile(kept_pct)
    calibrator.observe(x.astype("f4"))
    return calibrator


@pytest.mark.parametrize("kept_pct", [99.99, 99.9, 95.0])
def test_cuts_at_most_half_of_the_rest_on_either_side(kept_pct: float) -> None:
    x = np.random.default_rng(6).laplace(size=200_000).astype("f4") + 0.3
    found = of(x, kept_pct).range()
    most = (100 - kept_pct) / 200
    below, above = np.mean(x < found.low), np.mean(x > found.high)
    assert 0.5 * most < below <= most
    assert 0.5 * most < above <= most


def test_too_few_values_to_cut_any() -> None:
    x = np.random.default_rng(7).standard_normal(5000)
    found = of(x).range()
    assert found == Range(float(x.astype("f4").min()), float(x.astype("f4").max()))
    assert of(x).reason() == "clipped 0 % of values, at most 0.01 %"


def test_zeros_count_as_values() -> None:
    x = np.zeros(100_000, "f4")
    x[:3] = [5.0, -7.0, 9.0]
    found = of(x).range()
    assert -0.02 < found.low <= 0.0 <= found.high < 0.02


def test_everything_when_all_is_to_be_kept() -> None:
    x = np.append(np.random.default_rng(8).standard_normal(1000), 1e4)
    assert of(x, 100).range().high == 1e4


@pytest.mark.parametrize("kept_pct", [0, -1, 100.5])
def test_refuses_a_share_that_is_none(kept_pct: float) -> None:
    with pytest.raises(ValueError, match="for kept_pct; allowed: above 0, up to 100"):
        Percentile(kept_pct)
