"""The default, chosen per tensor by evidence: everything seen, unless clipping clearly pays."""

from __future__ import annotations

import numpy as np

from calibrators.algorithms.mse import Choice, least_squares, why
from calibrators.histogram import Histogram
from calibrators.ranges import Range

# how often the squared error of a clipped value counts
_CLIPPED = 8.0
_MOST_CUT = 1e-3  # share of the values


class Auto:
    """The whole range, or that of least squared error with clipping errors counted eight times.

    Squared error of one tensor only guesses at what the network's outputs lose: rounding errors
    average out in what reads the tensor, clipping errors share a sign and add up. Nor is a range
    taken that clips more than 0.1 %: that many aren't outliers but a second body.
    SQNR of the outputs (dB, uint8, equalized and corrected) with weights 1, 4 and 16 and for
    minmax: ppocrv4_en_rec 15.2, 20.6, 21.0, 20.9; minilm 22.1, 25.7, 25.6, 25.6; shufflenetv1 26.8,
    27.4, 27.4, 27.3; mobilenetv2 21.9, 22.0, 21.7, 21.4; symmetric int8 mobilenetv2 21.1, 20.9,
    20.8, 20.4. Percentile, moving average and KL win on some models and lose 5 to 13 dB on others.
    """

    def __init__(self) -> None:
        self.histogram = Histogram()

    def observe(self, x: np.ndarray) -> None:
        """Add every value of `x` (float, any shape); ValueError when one isn't finite."""
        self.histogram.observe(x)

    def merge(self, other: Auto) -> None:
        """Add what the other has seen."""
        self.histogram.merge(other.histogram)

    def range(self) -> Range:
        """The chosen range; ValueError when nothing was observed."""
        seen = self.histogram
        best = seen.once(weighted)
        return Range(seen.low, seen.high) if _against(seen, best) else best.range

    def reason(self) -> str:
        """Why this range, in words."""
        best = self.histogram.once(weighted)
        against = _against(self.histogram, best)
        return f"all that was seen: {against}" if against else why(self.histogram, best)


def weighted(seen: Histogram) -> Choice:
    """The range of least error, clipping counted as the class says."""
    return least_squares(seen, _CLIPPED)


def _against(seen: Histogram, best: Choice) -> str:
    """Why a clipped range isn't taken; empty when it is."""
    if not best.gain_db:
        return "clipping would gain nothing"
    cut = seen.outside(best.range.low, best.range.high)
    if cut > _MOST_CUT:
        return (
            f"{best.gain_db:.1f} dB less noise would cost {100 * cut:.2g} % of the values, more "
            f"than {100 * _MOST_CUT:g} %"
        )
    return ""
