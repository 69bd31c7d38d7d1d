"""The default, chosen per tensor by evidence: everything seen, unless clipping clearly pays."""

from __future__ import annotations

import numpy as np

from calibrators.algorithms.mse import Choice, least_squares, why
from calibrators.histogram import Histogram
from calibrators.ranges import Range

_LEAST_GAIN_DB = 0.5
_MOST_CUT = 1e-3  # share of the values


class Auto:
    """The whole range, or that of least squared error where it has 0.5 dB less expected noise.

    Squared error of one tensor only guesses at what the network's outputs lose: large values
    matter more than their number says, and other samples may hold more of them. So a small gain
    isn't taken, nor one that clips more than 0.1 %: that many aren't outliers but a second body.
    SQNR of the outputs (dB, uint8 / symmetric int8, 128 samples, no other correction) for minmax,
    mse and this: mobilenetv2 14.1 / 10.5, 15.4 / 11.7, 15.4 / 11.7; shufflenetv1 21.0 / 16.5,
    21.0 / 17.3, 21.2 / 17.4; resnet20 30.6 / 27.8, 30.7 / 28.1, 30.8 / 28.1; dscnn_kws 30.6 / 22.5,
    31.5 / 22.1, 31.4 / 22.1. Percentile, moving average and KL win on some and lose 5 to 13 dB on
    others.
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
        best = seen.once(least_squares)
        return Range(seen.low, seen.high) if _against(seen, best) else best.range

    def reason(self) -> str:
        """Why this range, in words."""
        best = self.histogram.once(least_squares)
        against = _against(self.histogram, best)
        return f"all that was seen: {against}" if against else why(self.histogram, best)


def _against(seen: Histogram, best: Choice) -> str:
    """Why a clipped range isn't taken; empty when it is."""
    if not best.gain_db:
        return "clipping would gain nothing"
    if best.gain_db < _LEAST_GAIN_DB:
        return f"clipping would gain {best.gain_db:.1f} dB, under {_LEAST_GAIN_DB:g} dB"
    cut = seen.outside(best.range.low, best.range.high)
    if cut > _MOST_CUT:
        return (
            f"{best.gain_db:.1f} dB less noise would cost {100 * cut:.2g} % of the values, more "
            f"than {100 * _MOST_CUT:g} %"
        )
    return ""
