"""The clipping threshold that loses least information, by Kullback-Leibler divergence.

Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017, the procedure of TensorRT's entropy
calibrator: for every candidate threshold compare the clipped distribution P with what 128 levels
leave of it, Q, and keep the threshold with the smallest KL(P || Q). Three details differ, all on
purpose: exact zeros (the output of ReLU) are left out, as every scale represents them; candidates
are up to 1 % apart; and clipping into an empty bin costs much, but not infinitely much, or else a
single outlier far from everything could never be clipped.
"""

from __future__ import annotations

import numpy as np

from calibrators.histogram import Histogram
from calibrators.ranges import Range

_LEVELS = 128


class Entropy:
    """A symmetric clipping threshold on |x|, cut to the values seen on either side."""

    def __init__(self) -> None:
        self.histogram = Histogram()

    def observe(self, x: np.ndarray) -> None:
        """Add every value of `x` (float, any shape); ValueError when one isn't finite."""
        self.histogram.observe(x)

    def merge(self, other: Entropy) -> None:
        """Add what the other has seen."""
        self.histogram.merge(other.histogram)

    def range(self) -> Range:
        """The chosen range; ValueError when nothing was observed."""
        seen = self.histogram
        if seen.count == 0:
            raise ValueError("nothing was observed")
        threshold = best_threshold(seen.magnitudes()) * seen.width
        if threshold == 0.0:
            return Range(seen.low, seen.high)
        return Range(max(seen.low, -threshold), min(seen.high, threshold))


def best_threshold(counts: np.ndarray) -> int:
    """The number of leading bins to keep, or 0 when there are too few to choose from.

    counts: int64[bins] of |x|, exact zeros left out.
    """
    used = np.flatnonzero(counts)
    if used.size == 0 or used[-1] < _LEVELS:
        return 0
    counts = counts[: used[-1] + 1].astype(np.float64)
    best, keep = np.inf, 0
    # from the widest down, so that a tie keeps the wider range
    for bins in _candidates(used):
        divergence = _divergence(counts, bins)
        if divergence < best:
            best, keep = divergence, bins
    return keep


def _candidates(used: np.ndarray) -> list[int]:
    """Thresholds that end on a used bin, the widest of every 1 %, and the narrowest there is.

    A threshold in a gap can't win: it clips the same values into a bin that is empty.
    """
    ends = used[::-1] + 1
    ends = ends[ends > _LEVELS]
    octave = np.frexp(ends)[1] - np.frexp(_LEVELS)[1]
    _, first = np.unique(octave * 2 * _LEVELS + (ends >> octave), return_index=True)
    return [*ends[np.sort(first)].tolist(), _LEVELS]


def _divergence(counts: np.ndarray, bins: int) -> float:
    """KL(P || Q) for a threshold after `bins` bins."""
    kept = counts[:bins]
    p = kept.copy()
    p[-1] += counts[bins:].sum()
    starts = np.arange(_LEVELS) * bins // _LEVELS
    filled = kept > 0
    level_sum = np.add.reduceat(kept, starts)
    level_filled = np.add.reduceat(filled.astype(np.float64), starts)
    average = np.divide(level_sum, level_filled, out=np.zeros(_LEVELS), where=level_filled > 0)
    q = np.where(filled, np.repeat(average, np.diff(np.append(starts, bins))), 0.0)
    if q.sum() == 0:
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    if np.any((p > 0) & (q == 0)):
        # everything clipped piles up in a bin that Q leaves empty: infinitely surprising
        q = np.where((p > 0) & (q == 0), np.finfo(np.float64).tiny, q)
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))
