"""Mean, spread and extremes of what is fed, per input and channel: two sets of samples prepared
alike have about the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    """One input of several samples: float64[N, C] each, a row per sample."""

    mean: np.ndarray
    square: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def alike_in_form(self, other: Moments) -> bool:
        """Whether both have as many channels."""
        return bool(self.mean.shape[1] == other.mean.shape[1])

    def centre(self) -> np.ndarray:
        """float64[C]: the mean over all samples, each counting alike."""
        return np.asarray(self.mean.mean(axis=0))

    def spread(self) -> np.ndarray:
        """float64[C]: the standard deviation over all values of all samples."""
        return _spread(self.mean.mean(axis=0), self.square.mean(axis=0))

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        """float64[C] each: the standard errors of `centre` and of the logarithm of `spread`, by
        leaving out one sample at a time (jackknife); needs two samples."""
        count = len(self.mean)
        centres, squares = ((x.sum(axis=0) - x) / (count - 1) for x in (self.mean, self.square))
        logs = np.log(np.maximum(_spread(centres, squares), np.finfo(np.float64).tiny))
        return _jackknife(centres), _jackknife(logs)


def _spread(mean: np.ndarray, square: np.ndarray) -> np.ndarray:
    # what cancellation leaves of a constant is no spread
    left = square - mean**2
    return np.sqrt(np.where(left > 1e-12 * square, left, 0.0))


def _jackknife(left_out: np.ndarray) -> np.ndarray:
    count = len(left_out)
    return np.asarray(np.sqrt((count - 1) * left_out.var(axis=0)))


def sample_moments(feeds: Mapping[str, np.ndarray], channel_axis: int) -> dict[str, np.ndarray]:
    """Per input that holds float or uint8 values float64[4, C]: mean, mean square, lowest and
    highest value of each channel.

    A map (rank 4) has its channels at `channel_axis`, anything else one for everything.
    """
    found = {}
    for name, x in feeds.items():
        if x.size and (x.dtype.kind == "f" or x.dtype == np.uint8):
            channels = np.moveaxis(x, channel_axis, 0) if x.ndim == 4 else x[None]
            flat = channels.reshape(len(channels), -1).astype(np.float64)
            found[name] = np.stack([flat.mean(1), (flat * flat).mean(1), flat.min(1), flat.max(1)])
    return found


def joined(samples: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Moments]:
    """What `sample_moments` gave of several samples, per input; without those whose channels
    differ in number between samples."""
    rows: dict[str, list[np.ndarray]] = {}
    for sample in samples:
        for name, row in sample.items():
            rows.setdefault(name, []).append(row)
    return {
        name: Moments(*np.stack(each, axis=1))
        for name, each in rows.items()
        if len({row.shape for row in each}) == 1
    }
