"""Mse: against quantizing the values themselves, and clipping only where that gains."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators.algorithms.mse import Mse, least_squares
from calibrators.ranges import Range, activation_params

RANDOM = np.random.default_rng(31)
GAUSS = RANDOM.standard_normal(100_000).astype("f4")
TENSORS = {
    "gauss": GAUSS,
    "laplace": RANDOM.laplace(size=100_000).astype("f4"),
    "skewed": np.append(GAUSS, RANDOM.laplace(size=2000) * 6 + 5).astype("f4"),
    "relu": np.maximum(RANDOM.laplace(size=100_000) - 0.5, 0).astype("f4"),
    "one far outlier": np.append(GAUSS, 60.0).astype("f4"),
    "below zero only": -np.abs(RANDOM.laplace(size=50_000)).astype("f4"),
    "above one only": (np.abs(GAUSS) + 1).astype("f4"),
}


def of(x: np.ndarray) -> Mse:
    calibrator = Mse()
    calibrator.observe(x)
    return calibrator


def noise(x: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of really quantizing x to uint8 with that range."""
    params = activation_params(Range(low, high), "uint8", False)
    return float(np.mean(np.square(params.dequantize(params.quantize(x)).astype("f8") - x)))


@pytest.mark.parametrize("name", TENSORS)
def test_as_good_as_a_search_that_quantizes(name: str) -> None:
    x = TENSORS[name]
    low, high = float(x.min()), float(x.max())
    ends = [1.06**-k for k in range(60)]
    highs = [high * e for e in ends] if high > 0 else [0.0]
    best_high = min(highs, key=lambda h: noise(x, min(low, 0.0), h))
    lows = [low * e for e in ends] if low < 0 else [0.0]
    best = min(noise(x, candidate, best_high) for candidate in lows)
    found = of(x).range()
    assert noise(x, found.low, found.high) <= 1.04 * best


@pytest.mark.parametrize("name", TENSORS)
def test_predicts_the_gain(name: str) -> None:
    x = TENSORS[name]
    choice = least_squares(of(x).histogram)
    before = noise(x, float(x.min()), float(x.max()))
    after = noise(x, choice.range.low, choice.range.high)
    assert 10 * np.log10(before / after) == pytest.approx(choice.gain_db, abs=0.15)


def test_clips_an_outlier_and_says_what_that_gains() -> None:
    calibrator = of(TENSORS["one far outlier"])
    found = calibrator.range()
    assert 40 < found.high < 55
    assert np.mean(found.low > GAUSS) < 1e-3
    assert calibrator.reason().startswith("clipped 0.0")
    assert calibrator.reason().endswith(" dB less noise expected")


def test_keeps_all_of_a_uniform_tensor() -> None:
    x = RANDOM.uniform(-3, 2, 50_000).astype("f4")
    assert of(x).range() == Range(float(x.min()), float(x.max()))
    assert of(x).reason() == "all that was seen: clipping would gain under 0.1 dB"


def test_keeps_the_clipped_top_of_a_relu6() -> None:
    x = np.clip(RANDOM.standard_normal(50_000) * 4, 0, 6).astype("f4")
    assert of(x).range() == Range(0.0, 6.0)


def test_zeros_cost_nothing_and_change_nothing() -> None:
    x = TENSORS["relu"]
    more = np.append(x, np.zeros(5 * x.size, "f4"))
    assert of(more).range() == of(x).range()


def test_extremes_weigh_what_they_are_where_the_rest_is_a_part() -> None:
    # every 50th value stands for 50; a top seen once among them all is one value, not fifty
    whole, part = Mse(), Mse()
    x = np.append(GAUSS, 12.0).astype("f4")
    whole.observe(x)
    part.histogram.observe(GAUSS[::50], 50)
    part.histogram.observe(np.array([GAUSS.min(), 12.0], "f4"))
    assert part.range().high == pytest.approx(whole.range().high, rel=0.1)
    heavy = Mse()
    heavy.histogram.observe(np.append(GAUSS[::50], 12.0).astype("f4"), 50)
    assert part.range().high < 10.5
    assert heavy.range().high == 12.0
