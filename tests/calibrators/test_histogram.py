"""The histogram ends in the same state whatever order, batches or shards its data came in."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators.histogram import BINS, Histogram


def seen(*arrays: np.ndarray) -> Histogram:
    histogram = Histogram()
    for x in arrays:
        histogram.observe(x)
    return histogram


def state(histogram: Histogram) -> tuple[object, ...]:
    sides = histogram.positive.tolist(), histogram.negative.tolist()
    extremes = histogram.exponent, histogram.low, histogram.high
    return (*extremes, histogram.count, histogram.zeros, *sides)


def skewed(seed: int = 5, size: int = 4000) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal(size) * np.exp(random.standard_normal(size) * 3)).astype("f4")


def test_counts_values_by_magnitude_on_both_sides() -> None:
    # the largest magnitude is below 4 = 2**2, so a bin is 2**-10 wide
    histogram = seen(np.array([3.0, 2**-10, 0.9 * 2**-10, 0.0, -0.5 * 2**-10, -3.0], "f4"))
    assert histogram.width == 2**-10
    assert {m: int(c) for m, c in enumerate(histogram.positive) if c} == {0: 2, 1: 1, 3072: 1}
    assert {m: int(c) for m, c in enumerate(histogram.negative) if c} == {0: 1, 3072: 1}
    assert (histogram.count, histogram.zeros) == (6, 1)
    assert (histogram.low, histogram.high) == (-3.0, 3.0)


@pytest.mark.parametrize("largest", [1.0, 1.0001, 1.9999, 2.0, 3e-5, 7e11])
def test_the_width_is_the_smallest_power_of_two_that_fits(largest: float) -> None:
    histogram = seen(np.array([largest], "f8"))
    top = int(np.flatnonzero(histogram.positive)[-1])
    assert BINS // 2 <= top < BINS
    assert top * histogram.width <= largest < (top + 1) * histogram.width


def test_growing_gives_what_the_wide_bins_would_have_given() -> None:
    x = skewed()
    ascending = x[np.argsort(np.abs(x))]
    slow = seen(*[ascending[i : i + 1] for i in range(x.size)])
    assert state(slow) == state(seen(x))


def test_bins_equal_plain_binning() -> None:
    x = skewed()
    histogram = seen(x[:100], x[100:])
    bins = np.floor(np.abs(x.astype("f8")) / histogram.width).astype(int)
    assert np.array_equal(histogram.positive, np.bincount(bins[x >= 0], minlength=BINS))
    assert np.array_equal(histogram.negative, np.bincount(bins[x < 0], minlength=BINS))


@pytest.mark.parametrize("size", [3, 255, 256, 4000])
def test_a_weight_is_as_many_equal_values(size: int) -> None:
    x = skewed(size=size)
    x[0] = 0.0
    weighted = Histogram()
    weighted.observe(x, 3)
    assert state(weighted) == state(seen(x, x, x))


@pytest.mark.parametrize("first", [0, 1, 1999, 4000])
def test_merging_shards_in_either_order_is_observing_all(first: int) -> None:
    x = np.sort(skewed())  # one shard has the small values, the other one the large ones
    for parts in ((x[:first], x[first:]), (x[first:], x[:first])):
        total = seen(parts[0])
        total.merge(seen(parts[1]))
        assert state(total) == state(seen(x))


def test_merging_changes_the_receiver_alone() -> None:
    small, large = seen(skewed(1)), seen(1e6 * skewed(2))
    before = state(large)
    small.merge(large)
    assert state(large) == before
    small.observe(skewed(3))
    assert state(large) == before


def test_merging_zeros_and_nothing() -> None:
    zeros, x = np.zeros(3, "f4"), skewed()
    for parts in ((zeros, x), (x, zeros), (zeros, zeros)):
        total = seen(parts[0])
        total.merge(seen(parts[1]))
        total.merge(Histogram())
        assert state(total) == state(seen(*parts))


def test_magnitudes_leave_exact_zeros_out() -> None:
    histogram = seen(np.array([0.0, -0.0, 1e-9, -1e-9, 1.0], "f4"))
    magnitudes = histogram.magnitudes()
    assert {m: int(c) for m, c in enumerate(magnitudes) if c} == {0: 2, BINS // 2: 1}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite_and_stays_as_it_was(bad: float) -> None:
    histogram = seen(skewed())
    before = state(histogram)
    with pytest.raises(ValueError, match="holds NaN or Inf"):
        histogram.observe(np.array([1e9, bad], "f4"))
    assert state(histogram) == before


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_every_float_type(dtype: str) -> None:
    x = (np.random.default_rng(3).standard_normal((3, 5, 7)) * 100).astype(dtype)
    histogram = seen(x)
    assert histogram.count == histogram.positive.sum() + histogram.negative.sum() == x.size
    assert (histogram.low, histogram.high) == (float(x.min()), float(x.max()))
    assert state(histogram) == state(seen(x.astype("f8")))


def test_largest_float16() -> None:
    assert seen(np.array([65504, -65504], "f2")).high == 65504.0


@pytest.mark.parametrize(
    "values",
    [
        np.array([1e-37, -3e-41, 1e-45], "f4"),  # the scale of narrower bins overflows float32
        np.array([1e-300, 5e-324], "f8"),
        np.array([3.4e38, -1e-45], "f4"),
        np.array([1e308, -1e-300], "f8"),
        np.array([1e30, 1e-30, -1e-30], "f4"),
    ],
)
def test_the_ends_of_the_number_range(values: np.ndarray) -> None:
    histogram = seen(*[values[i : i + 1] for i in range(values.size)])
    assert state(histogram) == state(seen(values[::-1]))
    assert (histogram.low, histogram.high) == (float(values.min()), float(values.max()))
    assert int(histogram.negative.sum()) == int((values < 0).sum())
    assert int(histogram.positive.sum()) == int((values >= 0).sum())


def test_mixed_types_in_one_tensor() -> None:
    histogram = seen(np.array([1e300], "f8"), np.array([3.0, -3.0], "f4"))
    assert (int(histogram.positive[0]), int(histogram.negative[0])) == (1, 1)


def test_nothing_and_empty() -> None:
    histogram = seen(np.zeros((0, 4), "f4"))
    assert (histogram.count, histogram.exponent, histogram.width) == (0, None, 1.0)
    assert histogram.low > histogram.high
    assert histogram.picture(8) == (0.0, 1.0, [0])


class TestOutside:
    def test_counts_what_lies_beyond_either_end(self) -> None:
        x = skewed()
        histogram = seen(x)
        low, high = float(np.quantile(x, 0.02)), float(np.quantile(x, 0.95))
        exact = float(np.mean((x < low) | (x > high)))
        near = float(np.mean(np.abs(x - low) < histogram.width))
        near += float(np.mean(np.abs(x - high) < histogram.width))
        assert abs(histogram.outside(low, high) - exact) <= near
        assert histogram.outside(float(x.min()), float(x.max())) == 0.0

    def test_what_is_cut_within_a_bin_is_not_nothing(self) -> None:
        histogram = seen(np.array([1.0, 2.0, 4.0], "f4"))
        assert histogram.outside(1.0, 3.99999) == 1 / 3
        assert Histogram().outside(0.0, 1.0) == 0.0


def test_the_bins_in_use_hold_every_value() -> None:
    x = skewed()
    edges, counts = seen(x).used()
    assert counts.sum() == x.size and counts[0] > 0 and counts[-1] > 0
    assert edges[0] <= x.min() and x.max() <= edges[-1]
    # NumPy's bins are half open, these are by magnitude: the same but for values on an edge
    assert np.abs(np.cumsum(np.histogram(x, edges)[0]) - np.cumsum(counts)).max() <= 1


def test_once_computes_again_only_after_more_was_observed() -> None:
    histogram, calls = seen(skewed()), []

    def count(of: Histogram) -> int:
        calls.append(of.count)
        return of.count

    assert histogram.once(count) == histogram.once(count) == 4000
    histogram.observe(np.ones(1, "f4"))
    assert histogram.once(count) == 4001
    assert calls == [4000, 4001]


class TestPicture:
    def test_covers_the_values_in_few_bars_and_loses_none(self) -> None:
        x = skewed()
        start, width, counts = seen(x).picture(64)
        assert 32 <= len(counts) <= 64
        assert sum(counts) == x.size
        assert counts[0] > 0 and counts[-1] > 0
        assert start <= x.min() < start + width
        end = start + width * len(counts)
        assert end - width <= x.max() < end

    def test_counts_lie_where_the_values_are(self) -> None:
        values = np.array([-2.95, 1.0, 1.0, 2.9], "f4")
        start, width, counts = seen(values).picture(64)
        bars = ((values - start) / width).astype(int)
        assert [counts[i] for i in bars] == [1, 2, 2, 1]

    def test_one_bar_for_one_value(self) -> None:
        start, width, counts = seen(np.full(7, 2.5, "f4")).picture(64)
        assert counts == [7]
        assert start <= 2.5 < start + width

    def test_zeros_only(self) -> None:
        assert seen(np.zeros(9, "f4")).picture(64) == (0.0, 1.0, [9])
