"""The range that holds 99.99 % of the values: half of the rest is cut on either side."""

from __future__ import annotations

import numpy as np

from calibrators.histogram import Histogram
from calibrators.ranges import Range

_KEPT_PCT = 99.99


class Percentile:
    """Cuts at most 0.005 % of the values at the low end and as many at the high end.

    Exact zeros count as values. What is cut is rounded to a bin, always towards cutting less.
    """

    def __init__(self, kept_pct: float = _KEPT_PCT) -> None:
        if not 0 < kept_pct <= 100:
            raise ValueError(f"{kept_pct} for kept_pct; allowed: above 0, up to 100")
        self.kept_pct = kept_pct
        self.histogram = Histogram()

    def observe(self, x: np.ndarray) -> None:
        """Add every value of `x` (float, any shape); ValueError when one isn't finite."""
        self.histogram.observe(x)

    def merge(self, other: Percentile) -> None:
        """Add what the other has seen."""
        self.histogram.merge(other.histogram)

    def range(self) -> Range:
        """The chosen range; ValueError when nothing was observed."""
        seen = self.histogram
        if seen.count == 0:
            raise ValueError("nothing was observed")
        if seen.exponent is None:
            return Range(0.0, 0.0)
        edges, counts = seen.used()
        most = seen.count * (100 - self.kept_pct) / 200
        low = edges[int(np.argmax(np.cumsum(counts) > most))]
        high = edges[len(counts) - int(np.argmax(np.cumsum(counts[::-1]) > most))]
        low, high = max(float(low), seen.low), min(float(high), seen.high)
        return Range(min(low, seen.high), max(high, seen.low))

    def reason(self) -> str:
        """Why this range, in words."""
        chosen = self.range()
        cut = self.histogram.outside(chosen.low, chosen.high)
        return f"clipped {100 * cut:.2g} % of values, at most {100 - self.kept_pct:.2g} %"
