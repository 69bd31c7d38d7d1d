"""Samples that calibrate and samples that judge, prepared differently: the engine then meets values
that its ranges were never chosen for, or judges of values that it will never meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploy.artifacts.audit import Finding
from deploy.audit.moments import Moments

# fewer say little of how much samples differ among themselves
_FEWEST = 4
# standard errors: below it other samples of the same kind may be all there is to it
_CERTAIN = 5.0
# Of splits of 8 image sets, the furthest were 0.29 standard deviations and 1.6 times the spread
# apart (8 samples of one), those of 64 samples 0.18 and 1.2; ImageNet's norm beside 0..1 is 4.4
# times, -1..1 beside 0..1 1.1 and 2.0. Loudness differs more: two halves of a recording 2.1 times.
_SHIFT = 0.75
_PICTURES, _OTHERS = 1.75, 3.0
_BYTES = 255.0


@dataclass(frozen=True)
class _Apart:
    """One channel of an input: how far its two means are apart, in standard deviations of the
    wider set, and how often the narrower spread goes into the wider; 0 and 1 where it may be
    chance."""

    shift: float
    times: float
    bound: float

    @property
    def weight(self) -> float:
        """Above 1 where one of the two is more than splits of one kind differ by."""
        return max(self.shift / _SHIFT, float(np.log(self.times) / np.log(self.bound)))


def unlike_judged(
    calibration: Mapping[str, Moments], judged: Mapping[str, Moments], picture: str = ""
) -> Finding | None:
    """The channel that differs most between the two sets, where that can't be chance; picture: the
    input that takes pictures, whose spread varies less than that of other things."""
    found = []
    for name in sorted(calibration.keys() & judged.keys()):
        ours, theirs = calibration[name], judged[name]
        bound = _PICTURES if name == picture else _OTHERS
        if min(len(ours.mean), len(theirs.mean)) >= _FEWEST and ours.alike_in_form(theirs):
            for channel, apart in enumerate(_channels(ours, theirs, bound)):
                found.append((apart.weight, name, channel))
    if not found or max(found)[0] <= 1:
        return None
    _, name, channel = max(found, key=lambda each: each[0])
    ours, theirs = calibration[name], judged[name]
    where = f", channel {channel}" if ours.mean.shape[1] > 1 else ""
    return Finding(
        "calibrated on other values than judged",
        "warn",
        f"input {name!r}{where}: calibration samples {_words(ours, channel)}, the samples that "
        f"judge {_words(theirs, channel)}",
        "ranges that were chosen for other values cut off what comes, or waste most of their steps",
        _advice(ours, theirs),
    )


def _channels(ours: Moments, theirs: Moments, bound: float) -> list[_Apart]:
    with np.errstate(divide="ignore", invalid="ignore"):
        spreads = np.stack([ours.spread(), theirs.spread()])
        shift = np.abs(ours.centre() - theirs.centre())
        ratio = np.abs(np.log(spreads[0] / spreads[1]))
        (mean_a, log_a), (mean_b, log_b) = ours.errors(), theirs.errors()
        sure = shift > _CERTAIN * np.hypot(mean_a, mean_b)
        ratio = np.where(ratio > _CERTAIN * np.hypot(log_a, log_b), ratio, 0.0)
        shift = np.where(sure, shift / spreads.max(axis=0), 0.0)
    # a constant channel is a finding of its own, and has no spread to compare with
    varies = spreads.min(axis=0) > 0
    return [
        _Apart(float(s), float(np.exp(r)), bound) if v else _Apart(0.0, 1.0, bound)
        for s, r, v in zip(shift, ratio, varies, strict=True)
    ]


def _words(one: Moments, channel: int) -> str:
    return (
        f"have mean {one.centre()[channel]:.3g} and standard deviation "
        f"{one.spread()[channel]:.3g} ({one.low[:, channel].min():.3g} to "
        f"{one.high[:, channel].max():.3g})"
    )


def _advice(ours: Moments, theirs: Moments) -> str:
    both = "--scale, --mean and --std are applied to --data and --eval-data alike"
    times = float(np.median(theirs.spread() / np.maximum(ours.spread(), 1e-300)))
    if any(abs(times / factor - 1) < 0.25 for factor in (_BYTES, 1 / _BYTES)):
        return (
            f"one of the two is about {_BYTES:.0f} times the other, pixels of 0..255 beside 0..1: "
            f"check --scale; {both}, so both have to hold the same"
        )
    return (
        f"prepare both alike: {both}, so neither may have them applied already while the other "
        "has not"
    )
