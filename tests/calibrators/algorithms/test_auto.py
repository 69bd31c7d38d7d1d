"""Auto: clips only on evidence, and says which."""

from __future__ import annotations

import numpy as np

from calibrators.algorithms.auto import Auto, weighted
from calibrators.algorithms.mse import Mse
from calibrators.ranges import Range

GAUSS = np.random.default_rng(41).standard_normal(200_000).astype("f4")


def of(x: np.ndarray) -> Auto:
    calibrator = Auto()
    calibrator.observe(x)
    return calibrator


def whole(x: np.ndarray) -> Range:
    return Range(float(x.min()), float(x.max()))


def test_takes_all_of_a_tensor_without_outliers() -> None:
    x = np.random.default_rng(42).uniform(-3, 2, 50_000).astype("f4")
    assert of(x).range() == whole(x)
    assert of(x).reason() == "all that was seen: clipping would gain nothing"


def test_a_gain_that_clipping_eats_up_is_not_taken() -> None:
    """Five values cost least squares less than their range; counted eightfold they cost more."""
    x = np.append(np.clip(GAUSS, -3, 3), np.full(5, 3.4)).astype("f4")
    mse = Mse()
    mse.observe(x)
    assert mse.range().high < 3.2
    assert of(x).range() == whole(x)
    assert of(x).reason() == "all that was seen: clipping would gain nothing"


def test_a_clear_gain_is() -> None:
    x = np.append(GAUSS, [60.0, -3.0]).astype("f4")
    found = of(x)
    assert -4.5 < found.range().low < -3.0  # pays too: every step is set by the far side
    assert 50 < found.range().high < 60
    assert found.reason().startswith("clipped ")
    assert found.reason().endswith(" dB less noise expected")


def test_many_values_are_never_clipped() -> None:
    # 0.5 % of the values lie far from the others, which one step holds
    x = np.append(GAUSS * 1e-3, np.abs(GAUSS[:1000])).astype("f4")
    found = of(x)
    chosen = weighted(found.histogram)
    assert chosen.gain_db > 0.2
    assert float(np.mean((x < chosen.range.low) | (x > chosen.range.high))) > 5e-3
    assert found.range() == whole(x)
    assert found.reason().endswith("% of the values, more than 0.1 %")
