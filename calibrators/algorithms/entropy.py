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
# candidates at a time: their arrays stay below what the C library fetches from the kernel anew
_TOGETHER = 96


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
        return self.histogram.once(_least_divergent)

    def reason(self) -> str:
        """Why this range, in words."""
        seen, chosen = self.histogram, self.range()
        cut = seen.outside(chosen.low, chosen.high)
        if not cut:
            return "all that was seen: clipping would lose more information"
        return f"clipped {100 * cut:.2g} % of values: least information lost (KL divergence)"


def _least_divergent(seen: Histogram) -> Range:
    if seen.count == 0:
        raise ValueError("nothing was observed")
    counts = seen.magnitudes()
    keep = best_threshold(counts)
    # all bins kept: the extremes that were seen, not the edge of the last bin
    if keep == 0 or not counts[keep:].any():
        return Range(seen.low, seen.high)
    threshold = keep * seen.width
    return Range(max(seen.low, -threshold), min(seen.high, threshold))


def best_threshold(counts: np.ndarray) -> int:
    """The number of leading bins to keep, or 0 when there are too few to choose from.

    counts: int64[bins] of |x|, exact zeros left out.
    """
    used = np.flatnonzero(counts)
    if used.size == 0 or used[-1] < _LEVELS:
        return 0
    bins = np.asarray(_candidates(used))
    divergence = _divergences(counts[: used[-1] + 1].astype(np.float64), bins)
    # from the widest down, so that a tie, but for rounding, keeps the wider range
    return int(bins[np.argmax(divergence <= divergence.min() + 1e-12)])


def _candidates(used: np.ndarray) -> list[int]:
    """Thresholds that end on a used bin, the widest of every 1 %, and the narrowest there is.

    A threshold in a gap can't win: it clips the same values into a bin that is empty.
    """
    ends = used[::-1] + 1
    ends = ends[ends > _LEVELS]
    octave = np.frexp(ends)[1] - np.frexp(_LEVELS)[1]
    _, first = np.unique(octave * 2 * _LEVELS + (ends >> octave), return_index=True)
    return [*ends[np.sort(first)].tolist(), _LEVELS]


def _divergences(counts: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """KL(P || Q) for a threshold after each number of `bins`: float64[thresholds].

    With p the kept counts, what is clipped added to the last, and q of a bin the average of its
    level's filled bins: KL = (sum p log p - sum p log q) / T - log T + log Q, T and Q being the
    sums of p and q. A level's share of the second sum is its count times the log of its average,
    so all of it comes from cumulative sums.
    """
    total = counts.sum()
    filled = counts > 0
    sums, used = _cumulative(counts), _cumulative(filled.astype(np.float64))
    informed = _cumulative(_times_log(counts, counts))
    chunks = [bins[i : i + _TOGETHER] for i in range(0, len(bins), _TOGETHER)]
    p_log_q, average = (
        np.concatenate(parts) for parts in zip(*(_kept(sums, used, c) for c in chunks), strict=True)
    )
    kept = sums[bins]
    clipped = total - kept
    last = np.where(filled[bins - 1], counts[bins - 1], 0.0)
    p_log_p = informed[bins] - _times_log(last, last) + _times_log(last + clipped, last + clipped)
    # everything clipped piles up in the last bin; where Q leaves that empty it is infinitely
    # surprising, and counted as the smallest share there is
    tiny = np.finfo(np.float64).tiny * kept
    p_log_q += _times_log(clipped, np.where(last > 0, average, tiny))
    with np.errstate(divide="ignore"):
        found = (p_log_p - p_log_q) / total - np.log(total) + np.log(kept)
    return np.asarray(np.where(kept > 0, found, np.inf))


def _kept(sums: np.ndarray, used: np.ndarray, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each threshold the sum of p log q over what it keeps, and q of the last filled bin."""
    starts = (np.arange(_LEVELS + 1) * bins[:, None]) // _LEVELS
    ends, used_ends = sums[starts], used[starts]
    level, average = ends[:, 1:] - ends[:, :-1], used_ends[:, 1:] - used_ends[:, :-1]
    np.divide(level, np.maximum(average, 1, out=average), out=average)
    last = average[:, -1].copy()
    logs = np.log(np.where(average > 0, average, 1.0), out=average)
    return np.einsum("tl,tl->t", level, logs), last


def _cumulative(x: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(x)])


def _times_log(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x * log(y), 0 where either is."""
    return np.asarray(x * np.log(np.where(y > 0, y, 1.0)))
