"""What a set of samples looks like by itself: repeats, blanks, clipping, variety, classes.

Statistics over arrays that know no graph and no file. A `Look` is all that is kept of a sample: a
thumbnail of at most 16x16 per channel, and its extremes, so memory doesn't grow with their size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibrators.samples import Sample

_SIDE = 16
# a distance, see `_distances`: of 300 photographs the closest unrelated pair has 0.13, each with
# itself saved again as JPEG at quality 30 at most 0.003, each cut by 4 of 228 pixels mostly 0.014
_NEAR = 0.03


@dataclass(frozen=True)
class Look:
    """One sample at a glance. thumbnail: float32[M], of its largest float input, empty without one.

    low, high: float32[C], the extremes per channel; at_low, at_high: share of the channel's values
    that lie exactly there.
    """

    name: str
    sha256: str
    label: int | None
    thumbnail: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_low: np.ndarray
    at_high: np.ndarray

    @property
    def constant(self) -> bool:
        """Whether every channel of the input holds one value only."""
        return bool(self.thumbnail.size and (self.low == self.high).all())


_NONE = np.zeros(0, np.float32)


def look(sample: Sample, channel_axis: int = 1) -> Look:
    """A look at one sample; what isn't a map (rank 4, and more than a pixel) has one channel for
    everything."""
    floats = [x for x in sample.feeds.values() if x.dtype.kind in "fu" and x.size > 1]
    if not floats:
        return Look(sample.name, sample.sha256(), sample.label, *[_NONE] * 5)
    x = max(floats, key=lambda each: each.size).astype(np.float32, copy=False)
    planes = x.ndim == 4 and x.size > x.shape[0] * x.shape[channel_axis]
    channels = np.moveaxis(x, channel_axis, 0) if planes else x[None]
    flat = channels.reshape(len(channels), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    return Look(
        sample.name,
        sample.sha256(),
        sample.label,
        _thumbnail(channels),
        low,
        high,
        (flat == low[:, None]).mean(axis=1, dtype=np.float32),
        (flat == high[:, None]).mean(axis=1, dtype=np.float32),
    )


def _thumbnail(channels: np.ndarray) -> np.ndarray:
    """Means of blocks over the last two axes (the last one where there is no other)."""
    small = channels.reshape(-1, *channels.shape[-2:]) if channels.ndim > 3 else channels
    for axis in (-2, -1):
        size = small.shape[axis]
        if size > _SIDE:
            starts = np.arange(_SIDE) * size // _SIDE
            counts = np.diff([*starts, size]).astype(np.float32)
            sums = np.add.reduceat(small, starts, axis=axis)
            small = sums / (counts[:, None] if axis == -2 else counts)
    # maps with more channels than a picture are thinned out
    return np.ascontiguousarray(small.reshape(-1)[:: -(-small.size // (4 * _SIDE**2))])


def repeats(looks: Sequence[Look]) -> list[list[Look]]:
    """Groups of samples whose every fed byte is the same, in order of appearance."""
    groups: dict[str, list[Look]] = {}
    for each in looks:
        groups.setdefault(each.sha256, []).append(each)
    return [group for group in groups.values() if len(group) > 1]


def near_repeats(looks: Sequence[Look]) -> list[tuple[Look, Look]]:
    """Pairs, each second one nearly equal to an earlier first one, though not in every byte.

    Compared as thumbnails less the mean thumbnail, so that what all have in common doesn't count.
    """
    firsts = list({each.sha256: each for each in reversed(looks)}.values())[::-1]
    seen = [each for each in firsts if not each.constant]
    distances = _distances(seen, centred=True)
    if len(distances) < 3:  # two samples less their mean are opposites
        return []
    before = np.triu(distances < _NEAR, 1)
    return [(seen[int(before[:, j].argmax())], seen[int(j)]) for j in np.flatnonzero(before.any(0))]


def variety(looks: Sequence[Look]) -> float:
    """The median distance of two samples, relative to the contrast within them: about 1 for
    unrelated pictures, 0 for equal ones; 1 where nothing can be compared."""
    distances = _distances([each for each in looks if not each.constant], centred=False)
    if len(distances) < 2:
        return 1.0
    return float(np.median(distances[np.triu_indices(len(distances), 1)]))


def _distances(looks: Sequence[Look], *, centred: bool) -> np.ndarray:
    """float64[N, N]: |a - b|^2 / (|a|^2 + |b|^2), so 0 for equal ones and 1 for those at right
    angles; empty where thumbnails differ in size."""
    sizes = {each.thumbnail.size for each in looks}
    if len(sizes) != 1 or sizes == {0}:
        return np.zeros((0, 0))
    x = np.stack([each.thumbnail for each in looks]).astype(np.float64)
    x -= x.mean(axis=0) if centred else x.mean(axis=1, keepdims=True)
    power = (x * x).sum(axis=1)
    both = power[:, None] + power[None]
    squared = np.maximum(both - 2 * x @ x.T, 0.0)
    return np.asarray(np.divide(squared, both, out=np.ones_like(both), where=both > 0))


def clipped(looks: Sequence[Look]) -> np.ndarray:
    """float64[N]: which share of each sample's values lies at the extremes of the whole set."""
    sizes = {each.low.size for each in looks}
    if len(sizes) != 1 or sizes == {0}:
        return np.zeros(len(looks))
    low = np.stack([each.low for each in looks])
    high = np.stack([each.high for each in looks])
    at_low = np.stack([each.at_low for each in looks]) * (low == low.min(axis=0))
    at_high = np.stack([each.at_high for each in looks]) * (high == high.max(axis=0))
    return np.asarray((at_low + at_high).mean(axis=1, dtype=np.float64))


@dataclass(frozen=True)
class Classes:
    """How labels are spread. effective: exp of their entropy, as many classes of equal size."""

    counts: dict[int, int]
    effective: float

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def classes(looks: Sequence[Look]) -> Classes | None:
    """None where not every sample has a label."""
    labels = [each.label for each in looks if each.label is not None]
    if not labels or len(labels) < len(looks):
        return None
    counts = Counter(labels)
    shares = np.array([counts[label] for label in sorted(counts)]) / len(labels)
    effective = float(np.exp(-(shares * np.log(shares)).sum()))
    return Classes({label: counts[label] for label in sorted(counts)}, effective)


@dataclass(frozen=True)
class Growth:
    """How ranges grew with the samples. after[i] samples: `missing[i]` is the 95th percentile over
    the tensors of what their range still lacked of its final width, `within[i]` the share of the
    tensors that lacked no more than the tolerance."""

    after: tuple[int, ...]
    missing: tuple[float, ...]
    within: tuple[float, ...]
    stable_after: int
    lacked_at_half: float
    tensors: int


def growth(low: np.ndarray, high: np.ndarray, tolerance: float = 0.05) -> Growth:
    """From each sample's extremes, float[N samples, T tensors], in the order of the samples.

    Ranges are widened to hold zero, as quantization does. stable_after: the fewest samples after
    which 95 % of the tensors lack at most `tolerance` of their final width.
    """
    count = len(low)
    wide = np.maximum.accumulate(np.maximum(high, 0.0), axis=0).astype(np.float64)
    wide -= np.minimum.accumulate(np.minimum(low, 0.0), axis=0)
    final = wide[-1]
    # a tensor of zeros has nothing to lack
    lacking = 1 - np.divide(wide, final, out=np.ones_like(wide), where=final > 0)
    within = (lacking <= tolerance).mean(axis=1)
    after = sorted({count, *(1 << i for i in range(count.bit_length()) if 1 << i <= count)})
    at = [lacking[n - 1] for n in after]
    return Growth(
        tuple(after),
        tuple(float(np.percentile(each, 95)) for each in at),
        tuple(float(within[n - 1]) for n in after),
        int(np.argmax(within >= 0.95)) + 1,
        float(np.percentile(lacking[(count + 1) // 2 - 1], 95)),
        low.shape[1],
    )
