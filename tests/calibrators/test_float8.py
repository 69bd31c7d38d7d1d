"""Float8: values by hand, against ml_dtypes, and scales that float16 holds."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from calibrators.float8 import LARGEST, Float8, float8_activation, float8_weight
from calibrators.ranges import Range

ONE = Float8(np.float32(1))


@pytest.mark.parametrize(
    "x, expected",
    [
        (0.0, 0.0),
        (17.0, 16.0),  # halfway between 16 and 18: to the even mantissa
        (19.0, 20.0),
        (-1.0625, -1.0),
        (448.0, 448.0),
        (1e6, 448.0),  # saturates: E4M3 has no infinity
        (-464.0, -448.0),
        (2.0**-9, 2.0**-9),  # the smallest number there is
        (2.0**-10, 0.0),
        (1.5 * 2.0**-9, 2.0**-8),
    ],
)
def test_by_hand(x: float, expected: float) -> None:
    assert float(ONE.quantize(np.asarray([x], "f4"))[0]) == expected


def test_all_magnitudes_round_as_in_ml_dtypes() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=20_000) * np.exp(rng.uniform(-12, 6, 20_000))).astype("f4")
    expected = np.clip(x, -LARGEST, LARGEST).astype(ml_dtypes.float8_e4m3fn).astype("f4")
    np.testing.assert_array_equal(ONE.quantize(x), expected)


def test_the_error_is_at_most_half_a_step() -> None:
    params = float8_activation(Range(-3.0, 2.0))
    x = np.linspace(-3, 3, 1001, dtype="f4")
    error = np.abs(params.dequantize(params.quantize(x)) - x)
    assert (error <= 0.5001 * params.steps(x)).all()
    assert error.max() > 0.4 * params.steps(x).max()


@pytest.mark.parametrize("size", [1e-9, 0.02, 0.7, 3.0, 448.0, 1e4, 1e7])
def test_a_scale_is_a_normal_number_of_float16_and_reaches_the_largest_value(size: float) -> None:
    scale = float8_activation(Range(-size / 3, size)).scale
    assert scale.dtype == np.float32 and scale.shape == ()
    assert np.float16(scale) == scale >= size / LARGEST
    assert scale == 2.0**-14 or scale <= 1.001 * size / LARGEST


def test_what_float16_cannot_hold_has_a_scale_all_the_same() -> None:
    assert float(float8_activation(Range(0.0, 1e9)).scale) == pytest.approx(1e9 / LARGEST)


def test_zeros_have_scale_one() -> None:
    assert float(float8_activation(Range(0.0, 0.0)).scale) == 1.0


def test_weights_have_a_scale_per_channel() -> None:
    weights = np.random.default_rng(1).normal(size=(3, 4, 2, 5)).astype("f4")
    weights[1] *= 50
    weights[2] = 0
    params = float8_weight(weights, 0)
    assert params.scale.shape == (3,) and params.scale[2] == 1.0
    assert params.scale[1] > 20 * params.scale[0]
    lost = params.dequantize(params.quantize(weights)) - weights
    assert np.sum(lost**2) < 1e-3 * np.sum(weights**2)
    assert float8_weight(weights, None).scale.shape == ()
