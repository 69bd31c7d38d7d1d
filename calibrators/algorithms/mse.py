"""The range with the smallest expected squared error of 8-bit quantization."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibrators.histogram import Histogram
from calibrators.ranges import Range

_STEPS = 255  # of an asymmetric 8-bit range
_APART = 1.04  # ratio of neighbouring candidates; the noise near its minimum is flat
_NARROWEST = 1 / 256  # of the full range's end
_LEAST_GAIN_DB = 0.1  # below that the histogram's own resolution decides, so nothing is clipped


@dataclass(frozen=True)
class Choice:
    """A range, and by how many dB its expected noise lies below that of the whole range."""

    range: Range
    gain_db: float


class Mse:
    """Clips where the rounding error saved outweighs what clipping costs, else not at all.

    Expected error of a range [l, h] (zero inside): its step s = (h - l) / 255 rounds with variance
    s**2 / 12 (uniform within a step: Bennett 1948; the criterion of Banner et al. 2019, "Post
    training 4-bit quantization of convolutional networks"), a value |x| < s / 2 becomes zero and
    costs x**2, and a value beyond an end costs the square of its distance to it. Exact zeros cost
    nothing in any range.
    """

    def __init__(self) -> None:
        self.histogram = Histogram()

    def observe(self, x: np.ndarray) -> None:
        """Add every value of `x` (float, any shape); ValueError when one isn't finite."""
        self.histogram.observe(x)

    def merge(self, other: Mse) -> None:
        """Add what the other has seen."""
        self.histogram.merge(other.histogram)

    def range(self) -> Range:
        """The chosen range; ValueError when nothing was observed."""
        return self.histogram.once(least_squares).range

    def reason(self) -> str:
        """Why this range, in words."""
        return why(self.histogram, self.histogram.once(least_squares))


def least_squares(seen: Histogram, clipped: float = 1.0) -> Choice:
    """The best of all pairs of low and high ends; ValueError when nothing was observed.

    clipped: how often the squared error of a clipped value counts.
    """
    if seen.count == 0:
        raise ValueError("nothing was observed")
    whole = Choice(Range(seen.low, seen.high), 0.0)
    if seen.exponent is None:
        return whole
    edges, counts = seen.used()
    middles = np.clip((edges[:-1] + edges[1:]) / 2, seen.low, seen.high)
    lows, low_cut, low_cost = _ends(-middles[::-1], counts[::-1], -seen.low)
    highs, high_cut, high_cost = _ends(middles, counts, seen.high)
    inside = (seen.count - seen.zeros) - low_cut[:, None] - high_cut
    steps = (lows[:, None] + highs) / _STEPS
    # a range that holds less than nothing is no candidate: both ends cut the same values
    rounding = np.where(inside >= 0, _rounding(seen, inside, steps), np.inf)
    error = rounding + clipped * (low_cost[:, None] + high_cost)
    best = np.unravel_index(int(np.argmin(error)), error.shape)
    if not error[best] > 0 or not error[0, 0] > 0:
        return whole
    gain_db = 10 * math.log10(float(error[0, 0] / error[best]))
    if gain_db < _LEAST_GAIN_DB:
        return whole
    low = seen.low if best[0] == 0 else -float(lows[best[0]])
    high = seen.high if best[1] == 0 else float(highs[best[1]])
    return Choice(Range(low, high), gain_db)


def why(seen: Histogram, choice: Choice) -> str:
    """What a choice cuts off and gains, in words."""
    cut = seen.outside(choice.range.low, choice.range.high)
    if not cut:
        return f"all that was seen: clipping would gain under {_LEAST_GAIN_DB:g} dB"
    return f"clipped {100 * cut:.2g} % of values: {choice.gain_db:.1f} dB less noise expected"


def _rounding(seen: Histogram, inside: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Expected error of the values inside, for each step."""
    counts = seen.magnitudes().astype(np.float64)
    squares = np.square((np.arange(len(counts)) + 0.5) * seen.width)
    below = np.minimum(steps / 2 / seen.width, len(counts)).astype(np.intp)
    zeroed, cost = (np.append(0.0, np.cumsum(x))[below] for x in (counts, counts * squares))
    return np.asarray(cost + np.maximum(inside - zeroed, 0.0) * np.square(steps) / 12)


def _ends(
    x: np.ndarray, counts: np.ndarray, whole: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates for an end above zero, widest (nothing cut) first; what each cuts; what it costs.

    x: ascending values with their counts; whole: the largest value itself. Below zero there is
    only the end 0, as zero has to be inside.
    """
    nothing = np.zeros(1)
    if whole <= 0:
        return nothing, nothing, nothing
    steps = math.ceil(math.log(1 / _NARROWEST) / math.log(_APART))
    ends = whole * _APART ** -np.arange(1, steps + 1, dtype=np.float64)
    first = np.searchsorted(x, ends, side="right")
    # sums over the values beyond each end, as a share of `whole` so that squares don't overflow
    share = x / whole
    beyond = [_from(counts * share**power)[first] for power in (0, 1, 2)]
    at = ends / whole
    cost = np.maximum(beyond[2] - 2 * at * beyond[1] + at**2 * beyond[0], 0.0) * whole * whole
    return (
        np.append(whole, ends),
        np.append(nothing, beyond[0]),
        np.append(nothing, cost),
    )


def _from(x: np.ndarray) -> np.ndarray:
    """Sums of x from each index to its end, and 0 past it."""
    return np.append(np.cumsum(x[::-1])[::-1], 0.0)
