"""A histogram that grows with its data and doesn't care in which order the data came.

The bin width is a power of two, the smallest that lets the largest magnitude seen fit. When a
larger value arrives, neighbouring bins are added in pairs, which is exactly what binning with the
wider width would have given: floor(floor(m / w) / 2) == floor(m / (2 w)). Scaling a float by a
power of two is exact, counts are integers, so one pass over the data in any order, in batches of
any size, or in shards merged later, ends in the same state, bit for bit, in constant memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
_LOG2_BINS = 12
BINS = 1 << _LOG2_BINS  # per sign; between half and all of them are in use
_FINEST = -126  # 2**-exponent has to be a float32; values below 2**-114 share fewer bins


class Histogram:
    """Counts of a tensor's values in bins of width 2**exponent, both signs, with exact extremes.

    Bin m of `positive` counts m*w <= x < (m+1)*w, bin m of `negative` m*w <= -x < (m+1)*w (x < 0).
    """

    def __init__(self) -> None:
        self.exponent: int | None = None  # None until a value other than zero is seen
        self.low = float("inf")
        self.high = float("-inf")
        self.count = 0
        self.zeros = 0
        self._bins = np.zeros(2 * BINS, np.int64)  # negative side reversed, then positive side
        self._found: tuple[int, Any, Any] = (-1, None, None)

    @property
    def width(self) -> float:
        """The bin width; 1.0 while only zeros were seen."""
        return 2.0 ** (self.exponent or 0)

    @property
    def positive(self) -> np.ndarray:
        """int64[BINS] counts of x >= 0, the exact zeros included."""
        return self._bins[BINS:]

    @property
    def negative(self) -> np.ndarray:
        """int64[BINS] counts of x < 0, by magnitude."""
        return self._bins[:BINS][::-1]

    def observe(self, x: np.ndarray, weight: int = 1) -> None:
        """Add every value of `x` (float, any shape); ValueError when one isn't finite.

        weight: how many values each of them stands for, where `x` is a part of a tensor.
        """
        if x.size == 0:
            return
        flat = x.reshape(-1)
        if flat.dtype == np.float16:
            flat = flat.astype(np.float32)
        low, high = float(flat.min()), float(flat.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise ValueError("holds NaN or Inf")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.count += flat.size * weight
        self.zeros += int(np.count_nonzero(flat == 0)) * weight
        self._fit(max(-low, high))
        scale = flat.dtype.type(2.0 ** -(self.exponent or 0))
        # truncation is floor of the magnitude; x < 0 moves to the reversed negative side. It is
        # taken from x, not from the product, which may underflow to zero.
        index = (flat * scale).astype(np.int32)
        if low < 0:
            index -= (flat < 0).astype(np.int32)
        index += BINS
        # faster than bincount, which goes over all bins besides
        np.add.at(self._bins, index.astype(np.intp), weight)

    def merge(self, other: Histogram) -> None:
        """Add the other's counts, as if its data had been observed here."""
        if other.count == 0:
            return
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.count += other.count
        self.zeros += other.zeros
        if other.exponent is None:
            self._bins += other._bins
            return
        if self.exponent is None or self.exponent < other.exponent:
            self._widen(other.exponent)
        shift = int(self.exponent or 0) - other.exponent
        self._bins += _folded(other._bins, shift)

    def magnitudes(self) -> np.ndarray:
        """int64[BINS] counts of |x| without the exact zeros, which any scale represents."""
        counts: np.ndarray = self.positive + self.negative
        counts[0] -= self.zeros
        return counts

    def once(self, compute: Callable[[Histogram], T]) -> T:
        """compute(self), kept until more is observed or something else is asked for."""
        if self._found[:2] != (self.count, compute):
            self._found = (self.count, compute, compute(self))
        found: T = self._found[2]
        return found

    def used(self) -> tuple[np.ndarray, np.ndarray]:
        """(edges float64[n + 1], counts int64[n]): the bins from the first to the last in use.

        Edges ascend through zero; only zeros seen is one bin around them.
        """
        if self.exponent is None:
            return np.array([0.0, 1.0]), np.array([self.count])
        filled = np.flatnonzero(self._bins)
        first, last = int(filled[0]), int(filled[-1]) + 1
        edges = (np.arange(first, last + 1) - BINS) * self.width
        return edges, self._bins[first:last].copy()

    def outside(self, low: float, high: float) -> float:
        """Which share of the values lies below low or above high, to the width of a bin.

        Not 0.0 when a value seen lies outside.
        """
        if self.count == 0 or (low <= self.low and self.high <= high):
            return 0.0
        edges, counts = self.used()
        middles = np.clip((edges[:-1] + edges[1:]) / 2, self.low, self.high)
        cut = int(counts[(middles < low) | (middles > high)].sum())
        return max(cut, 1) / self.count

    def picture(self, bars: int) -> tuple[float, float, list[int]]:
        """(left edge, bar width, counts) of about `bars` bars over the values seen, for a plot."""
        if self.exponent is None:
            return 0.0, 1.0, [self.count]
        used = np.flatnonzero(self._bins)
        first, last = int(used[0]), int(used[-1])
        fold = 1
        while (last // fold) - (first // fold) + 1 > bars:
            fold *= 2
        start = first // fold
        groups = np.arange(first, last + 1) // fold - start
        counts = np.bincount(groups, weights=self._bins[first : last + 1]).astype(np.int64)
        return (start * fold - BINS) * self.width, fold * self.width, counts.tolist()

    def _fit(self, magnitude: float) -> None:
        if magnitude == 0.0:
            return
        # magnitude = m * 2**k with 0.5 <= m < 1, so 2**k is the smallest power of two above it
        needed = max(int(np.frexp(magnitude)[1]) - _LOG2_BINS, _FINEST)
        if self.exponent is None or needed > self.exponent:
            self._widen(needed)

    def _widen(self, exponent: int) -> None:
        if self.exponent is not None:
            self._bins = _folded(self._bins, exponent - self.exponent)
        self.exponent = exponent  # zeros counted so far sit in bin 0 at any width


def _folded(bins: np.ndarray, shift: int) -> np.ndarray:
    """The same counts in bins 2**shift as wide."""
    if shift == 0:
        return bins
    used = np.flatnonzero(bins)
    index = ((used - BINS) >> min(shift, _LOG2_BINS + 1)) + BINS
    folded = np.zeros_like(bins)
    np.add.at(folded, index, bins[used])
    return folded
