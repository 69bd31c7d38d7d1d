"""The whole interval that was seen: nothing clipped, outliers included."""

from __future__ import annotations

import numpy as np

from calibrators.ranges import Range


class Minmax:
    """Exact smallest and largest value of a tensor over all samples."""

    def __init__(self) -> None:
        self.low = float("inf")
        self.high = float("-inf")

    def observe(self, x: np.ndarray) -> None:
        """Add every value of `x` (float, any shape); ValueError when one isn't finite."""
        if x.size == 0:
            return
        low, high = float(x.min()), float(x.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise ValueError("holds NaN or Inf")
        self.low, self.high = min(self.low, low), max(self.high, high)

    def merge(self, other: Minmax) -> None:
        """Add what the other has seen."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def range(self) -> Range:
        """The range seen; ValueError when nothing was observed."""
        if self.low > self.high:
            raise ValueError("nothing was observed")
        return Range(self.low, self.high)
