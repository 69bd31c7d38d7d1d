"""The mean of every sample's extremes: one odd sample moves the range by its share only."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from calibrators.ranges import Range

# every float64 is a whole number of these
_BITS = 1074


class MovingAverage:
    """Mean low and mean high over samples, each `observe` being one sample.

    Frameworks that calibrate in training order weight later samples more (an exponential moving
    average: Jacob et al. 2018, section 3.1, "EMA with smoothing parameter close to 1"). With all
    samples at hand order means nothing, and it would make the result depend on how the samples are
    dealt out to workers. So every sample weighs the same, and the sums are exact integers: shards
    in any order give the same bits.
    """

    per_sample = True  # what one `observe` holds matters, not only all values together

    def __init__(self) -> None:
        self.samples = 0
        self._lows = 0
        self._highs = 0
        self._span = (float("inf"), float("-inf"))

    def observe(self, x: np.ndarray) -> None:
        """Add one sample's values (float, any shape); ValueError when one isn't finite."""
        if x.size == 0:
            return
        low, high = float(x.min()) + 0.0, float(x.max()) + 0.0
        if not np.isfinite(low) or not np.isfinite(high):
            raise ValueError("holds NaN or Inf")
        self.samples += 1
        self._lows += _whole(low)
        self._highs += _whole(high)
        self._span = min(self._span[0], low), max(self._span[1], high)

    def merge(self, other: MovingAverage) -> None:
        """Add what the other has seen."""
        self.samples += other.samples
        self._lows += other._lows
        self._highs += other._highs
        self._span = min(self._span[0], other._span[0]), max(self._span[1], other._span[1])

    def range(self) -> Range:
        """The mean range; ValueError when nothing was observed."""
        if self.samples == 0:
            raise ValueError("nothing was observed")
        unit = self.samples << _BITS
        return Range(float(Fraction(self._lows, unit)), float(Fraction(self._highs, unit)))

    def reason(self) -> str:
        """Why this range, in words."""
        low, high = self._span
        return f"mean extremes of {self.samples} samples, which reach from {low:.4g} to {high:.4g}"


def _whole(value: float) -> int:
    """value * 2**1074, exactly."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_BITS + 1 - denominator.bit_length())
