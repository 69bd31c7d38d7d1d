"""Ranges to parameters, and quantize/dequantize: hand-computed values and their bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibrators.ranges import (
    Affine,
    Integers,
    Range,
    activation_params,
    channel_params,
    group_params,
    weight_params,
)


class TestRange:
    @pytest.mark.parametrize("low, high", [(math.nan, 1.0), (0.0, math.inf), (-math.inf, 0.0)])
    def test_refuses_what_is_not_finite(self, low: float, high: float) -> None:
        with pytest.raises(ValueError, match=r"range \[.*\] is not finite"):
            Range(low, high)

    def test_refuses_a_swapped_range(self) -> None:
        with pytest.raises(ValueError, match=r"low 2\.0 lies above high 1\.0"):
            Range(2.0, 1.0)

    def test_a_point_is_a_range(self) -> None:
        assert Range(3.0, 3.0) == Range(3.0, 3.0)

    def test_the_sign_of_zero_is_forgotten(self) -> None:
        # which of 0.0 and -0.0 came first depends on the order of the samples
        assert repr(Range(-0.0, -0.0)) == repr(Range(0.0, 0.0))


class TestActivationParams:
    @pytest.mark.parametrize(
        "low, high, dtype, symmetric, scale, zero",
        [
            (0.0, 255.0, "uint8", False, 1.0, 0),
            (-1.0, 1.55, "uint8", False, 0.01, 100),
            (-1.0, 1.55, "int8", False, 0.01, -28),
            (-2.55, 0.0, "uint8", False, 0.01, 255),
            (0.5, 2.55, "uint8", False, 0.01, 0),  # widened to hold zero
            (-2.55, -0.5, "uint8", False, 0.01, 255),
            (-1.27, 0.3, "int8", True, 0.01, 0),
            (-0.3, 1.27, "int8", True, 0.01, 0),
            (-0.3, 1.27, "uint8", True, 0.01, 128),
            (0.0, 0.0, "uint8", False, 1.0, 0),
            (0.0, 0.0, "int8", True, 1.0, 0),
            (0.0, 0.0, "int8", False, 1.0, -128),
        ],
    )
    def test_by_hand(
        self, low: float, high: float, dtype: str, symmetric: bool, scale: float, zero: int
    ) -> None:
        params = activation_params(Range(low, high), dtype, symmetric)
        assert float(params.scale) == pytest.approx(scale, rel=1e-6)
        assert int(params.zero_point) == zero
        assert params.scale.dtype == np.float32 and params.scale.shape == ()
        assert params.zero_point.dtype == np.dtype(dtype)

    @pytest.mark.parametrize("dtype", ["uint8", "int8"])
    @pytest.mark.parametrize("symmetric", [False, True])
    @pytest.mark.parametrize("low, high", [(-0.731, 6.0), (-3.3, 0.01), (0.2, 5.0), (-8.0, -1.0)])
    def test_zero_is_exact_and_the_rest_within_half_a_step(
        self, low: float, high: float, dtype: str, symmetric: bool
    ) -> None:
        params = activation_params(Range(low, high), dtype, symmetric)
        assert float(params.dequantize(params.quantize(np.zeros(1, "f4")))[0]) == 0.0
        x = np.linspace(low, high, 1001, dtype="f4")
        error = np.abs(params.dequantize(params.quantize(x)) - x)
        # rounding the zero point may cost the ends another half step
        assert error.max() <= float(params.scale) * (0.5 if symmetric else 1.0) * 1.0001
        assert np.mean(error) <= 0.26 * float(params.scale)

    def test_a_range_too_small_for_float32_still_has_a_usable_scale(self) -> None:
        params = activation_params(Range(0.0, 1e-36), "uint8", False)
        assert np.isfinite(np.float32(1) / params.scale)
        assert float(activation_params(Range(0.0, 1e-60), "uint8", False).scale) == 1.0


class TestQuantize:
    def test_rounds_half_to_even_and_saturates(self) -> None:
        params = Affine(np.float32(2.0), np.asarray(10, np.uint8), 0, 255)
        x = np.array([-100.0, -20.0, 1.0, 3.0, 5.0, 489.0, 491.0, 1e9], "f4")
        got = params.quantize(x)
        assert got.dtype == np.uint8
        assert got.tolist() == [0, 0, 10, 12, 12, 254, 255, 255]

    def test_what_overflows_float32_saturates_too(self) -> None:
        params = activation_params(Range(0.0, 1.0), "uint8", False)
        assert params.quantize(np.array([-3e38, 3e38], "f4")).tolist() == [0, 255]

    def test_dequantize_centres_before_it_scales(self) -> None:
        params = Affine(np.asarray(0.5, "f4"), np.asarray(200, np.uint8), 0, 255)
        got = params.dequantize(np.array([0, 199, 200, 255], np.uint8))
        assert got.dtype == np.float32
        assert got.tolist() == [-100.0, -0.5, 0.0, 27.5]

    def test_every_integer_survives_a_round_trip(self) -> None:
        params = activation_params(Range(-0.731, 6.0), "int8", False)
        q = np.arange(-128, 128, dtype=np.int8)
        assert np.array_equal(params.quantize(params.dequantize(q)), q)


class TestWeightParams:
    WEIGHTS = np.random.default_rng(11).standard_normal((4, 3, 2, 5)).astype("f4")

    @pytest.mark.parametrize("axis", [0, 1, 3])
    def test_one_scale_per_channel_of_the_axis(self, axis: int) -> None:
        params = weight_params(self.WEIGHTS, axis)
        channels = np.moveaxis(self.WEIGHTS, axis, 0)
        expected = [np.abs(c).max() / 127 for c in channels]
        assert params.scale == pytest.approx(expected, rel=1e-6)
        assert params.scale.dtype == np.float32
        q = params.quantize(self.WEIGHTS)
        assert q.dtype == np.int8
        tops = [np.abs(c.astype(int)).max() for c in np.moveaxis(q, axis, 0)]
        assert tops == [127] * self.WEIGHTS.shape[axis]
        step = params.scale.reshape([-1 if i == axis else 1 for i in range(4)])
        assert np.all(np.abs(params.dequantize(q) - self.WEIGHTS) <= 0.5001 * step)

    def test_one_scale_for_the_whole_tensor(self) -> None:
        params = weight_params(self.WEIGHTS, None)
        assert params.scale.shape == params.zero_point.shape == ()
        assert float(params.scale) == pytest.approx(np.abs(self.WEIGHTS).max() / 127, rel=1e-6)

    @pytest.mark.parametrize("bits, top", [(8, 127), (7, 63), (4, 7), (2, 1)])
    def test_narrow_range_of_the_bits(self, bits: int, top: int) -> None:
        params = weight_params(self.WEIGHTS, 0, bits)
        q = params.quantize(self.WEIGHTS).astype(int)
        assert (params.qmin, params.qmax) == (-top, top)
        assert np.abs(q).max() == top

    def test_a_weight_and_its_negative_round_alike(self) -> None:
        both = np.stack([self.WEIGHTS, -self.WEIGHTS])
        q = weight_params(both, 0).quantize(both).astype(int)
        assert np.array_equal(q[0], -q[1])

    def test_a_channel_of_zeros_gets_scale_1(self) -> None:
        weights = self.WEIGHTS.copy()
        weights[2] = 0
        params = weight_params(weights, 0)
        assert float(params.scale[2]) == 1.0
        assert not params.quantize(weights)[2].any()


class TestIntegers:
    @pytest.mark.parametrize(
        "bits, signed, low, high",
        [(8, True, -128, 127), (8, False, 0, 255), (4, True, -8, 7), (4, False, 0, 15)],
    )
    def test_limits(self, bits: int, signed: bool, low: int, high: int) -> None:
        integers = Integers(bits, signed)
        assert (integers.qmin, integers.qmax) == (low, high)
        assert integers.dtype == (np.int8 if signed else np.uint8)

    @pytest.mark.parametrize("bits", [1, 9])
    def test_refuses_other_sizes(self, bits: int) -> None:
        with pytest.raises(ValueError, match=f"{bits} bits; allowed: 2 to 8"):
            Integers(bits)


class TestGroups:
    # 11 input channels in groups of 4: 4, 4 and 3; every group of another magnitude
    WEIGHTS = (
        np.random.default_rng(12).standard_normal((5, 11, 3)) * np.arange(1, 12)[:, None] ** 2
    ).astype("f4")

    @pytest.mark.parametrize("bits", range(2, 9))
    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("symmetric", [False, True])
    def test_within_half_a_step_of_each_group(
        self, bits: int, signed: bool, symmetric: bool
    ) -> None:
        x = self.WEIGHTS
        params = group_params(x, 1, 4, Integers(bits, signed), symmetric=symmetric)
        assert params.scale.shape == params.zero_point.shape == (5, 3, 3)
        q = params.quantize(x)
        assert q.shape == x.shape and q.dtype == (np.int8 if signed else np.uint8)
        assert params.qmin <= int(q.min()) and int(q.max()) <= params.qmax
        step = np.repeat(params.scale, 4, axis=1)[:, :11]
        # the zero point is a whole number, which may cost the ends another half step
        most = 0.5001 if symmetric else 1.0001
        assert np.all(np.abs(params.dequantize(q) - x) <= most * step)

    def test_a_group_is_what_a_tensor_of_its_own_would_be(self) -> None:
        x = self.WEIGHTS
        for symmetric in (False, True):
            params = group_params(x, 1, 4, Integers(4), symmetric=symmetric)
            alone = channel_params(x[2, 8:, 1], None, Integers(4), symmetric=symmetric)
            assert params.scale[2, 2, 1] == alone.scale
            assert params.zero_point[2, 2, 1] == alone.zero_point
            mine = params.dequantize(params.quantize(x))[2, 8:, 1]
            assert np.array_equal(mine, alone.dequantize(alone.quantize(x[2, 8:, 1])))

    def test_smaller_groups_lose_less(self) -> None:
        def loss(size: int) -> float:
            params = group_params(self.WEIGHTS, 1, size, Integers(4), symmetric=True)
            back = params.dequantize(params.quantize(self.WEIGHTS))
            return float(np.square(back - self.WEIGHTS).sum())

        assert loss(2) < 0.8 * loss(4) < 0.8 * loss(11)

    def test_zeros_get_scale_1(self) -> None:
        params = group_params(np.zeros((2, 4), "f4"), 1, 2, Integers(4, False), symmetric=False)
        assert params.scale.tolist() == [[1, 1], [1, 1]]
        assert not params.dequantize(params.quantize(np.zeros((2, 4), "f4"))).any()

    def test_refuses_a_size_below_one(self) -> None:
        with pytest.raises(ValueError, match="group size 0; allowed: 1 or more"):
            group_params(self.WEIGHTS, 1, 0, Integers(), symmetric=True)


class TestChannelParams:
    def test_symmetric_per_channel_is_weight_params(self) -> None:
        weights = TestWeightParams.WEIGHTS
        for axis in (0, 2, None):
            a, b = (
                channel_params(weights, axis, Integers(), symmetric=True),
                weight_params(weights, axis),
            )
            assert np.array_equal(a.scale, b.scale)
            assert np.array_equal(a.quantize(weights), b.quantize(weights))

    def test_asymmetric_per_tensor_is_activation_params(self) -> None:
        x = np.array([-1.0, 0.25, 1.55], "f4")
        found = channel_params(x, None, Integers(8, False), symmetric=False)
        expected = activation_params(Range(float(x.min()), float(x.max())), "uint8", False)
        assert (found.scale, found.zero_point) == (expected.scale, expected.zero_point)

    def test_asymmetric_uses_all_integers_of_each_channel(self) -> None:
        x = np.array([[0.0, 1.0, 3.0], [-8.0, 2.0, 7.0]], "f4")
        params = channel_params(x, 0, Integers(4, False), symmetric=False)
        assert params.scale.tolist() == pytest.approx([0.2, 1.0])
        assert params.zero_point.tolist() == [0, 8]
        assert params.quantize(x).tolist() == [[0, 5, 15], [0, 10, 15]]

    def test_symmetric_unsigned_has_the_middle_for_zero(self) -> None:
        params = channel_params(
            np.array([-3.5, 7.0], "f4"), None, Integers(4, False), symmetric=True
        )
        assert (int(params.zero_point), params.qmin, params.qmax) == (8, 1, 15)
        assert params.quantize(np.array([-7.0, 0.0, 7.0], "f4")).tolist() == [1, 8, 15]
