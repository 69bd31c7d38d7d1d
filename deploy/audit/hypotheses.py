"""Other ways the samples could have been prepared: the usual ones, beside what is fed now.

Each is an affine map per channel of what is fed now, and maybe the channels the other way round.
To find it, the values are first taken back to pixels of 0..1; how follows from the recipe, or, for
data that comes ready to feed, from which usual way would fill 0..1 with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibrators.preprocess import Preprocess

_OTHER = {"RGB": "BGR", "BGR": "RGB"}


@dataclass(frozen=True)
class Norm:
    """(pixel / 255 - mean) / std, mean and std one for all or in the order R, G, B; what it is
    called, and the flags that ask for it: `scale`, and `mean` and `std` as they are written."""

    title: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: str
    mean_flag: tuple[str, ...] = ()
    std_flag: tuple[str, ...] = ()

    def flags(self, order: str) -> str:
        """The flags for channels in that order."""
        step = -1 if order == "BGR" else 1
        mean, std = (",".join(each[::step]) for each in (self.mean_flag, self.std_flag))
        given = [self.scale, f"--mean {mean}" if mean else "", f"--std {std}" if std else ""]
        absent = [flag for flag, value in (("--mean", mean), ("--std", std)) if not value]
        left_out = f"(no {' and no '.join(absent)})" if absent else ""
        return " ".join(filter(None, [*given, left_out]))


_UNIT = f"--scale {1 / 255:.8f}"
_PLAIN = Norm("values of 0..1 without mean and std", (0.0,), (1.0,), _UNIT)
_SIGNED = Norm("values of -1..1, mean and std 0.5", (0.5,), (0.5,), _UNIT, ("0.5",), ("0.5",))
_BYTES = Norm("values of 0..255 without mean and std", (0.0,), (1 / 255,), "--scale 1")
_IMAGENET = Norm(
    "the mean and std of ImageNet",
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
    _UNIT,
    ("0.485", "0.456", "0.406"),
    ("0.229", "0.224", "0.225"),
)
_CAFFE = Norm(
    "values of 0..255 less the mean of ImageNet",
    (123.68 / 255, 116.779 / 255, 103.939 / 255),
    (1 / 255,),
    "--scale 1",
    ("123.68", "116.779", "103.939"),
)
_NORMS = {1: (_PLAIN, _SIGNED, _BYTES), 3: (_PLAIN, _SIGNED, _BYTES, _IMAGENET, _CAFFE)}


@dataclass(frozen=True)
class Hypothesis:
    """One way to prepare the samples: what is fed now, times `factor` plus `shift` per channel,
    and then the channels reversed if it `swaps`. title: in words; flags: how to ask for it;
    normed: another scale, mean or std than now."""

    title: str
    flags: str
    factor: np.ndarray
    shift: np.ndarray
    swaps: bool = False
    normed: bool = False

    def feed(self, x: np.ndarray, axis: int) -> np.ndarray:
        """float32, what would be fed; x: a feed of rank 4, its channels at `axis`."""
        along = [1, 1, 1, 1]
        along[axis] = -1
        y = x * self.factor.reshape(along) + self.shift.reshape(along)
        return np.ascontiguousarray(np.flip(y, axis) if self.swaps else y, dtype=np.float32)


@dataclass(frozen=True)
class Alternatives:
    """What is fed now, and the same in every other usual norm, with the colours as they are;
    `swapped` holds each of them with the colours swapped, own first, or nothing without colours.

    known: whether the values could be taken back to pixels; without that there are no norms.
    """

    own: Hypothesis
    norms: tuple[Hypothesis, ...]
    swapped: tuple[Hypothesis, ...]
    known: bool


def alternatives(low: np.ndarray, high: np.ndarray, preprocess: Preprocess) -> Alternatives | None:
    """low, high: float[C], each channel's extremes over the samples; None where C isn't 1 or 3."""
    channels = low.size
    if channels not in _NORMS:
        return None
    order = preprocess.color if preprocess.color in _OTHER else "RGB"
    own = Hypothesis("as it is", "", np.ones(channels), np.zeros(channels))
    pixels = _to_pixels(low, high, preprocess, order)
    factor, shift = pixels or (own.factor, own.shift)
    norms, swapped = [], []
    if channels == 3:
        # mean and std stay where they are: that is what changing --color alone does
        turned = (factor / factor[::-1], (shift - shift[::-1]) / factor[::-1])
        words = f"colour order {_OTHER[order]}"
        swapped.append(Hypothesis(words, f"--color {_OTHER[order]}", *turned, swaps=True))
    for norm in _NORMS[channels] if pixels else ():
        mean, std = (_ordered(values, channels, order) for values in (norm.mean, norm.std))
        moved = (factor / std, (shift - mean) / std)
        one = Hypothesis(norm.title, norm.flags(order), *moved, normed=True)
        if _same(one, low, high):
            continue
        norms.append(one)
        if channels == 3:
            words = f"colour order {_OTHER[order]} and {norm.title}"
            flags = f"--color {_OTHER[order]} {norm.flags(_OTHER[order])}"
            swapped.append(Hypothesis(words, flags, *moved, swaps=True, normed=True))
    return Alternatives(own, tuple(norms), tuple(swapped), pixels is not None)


def _to_pixels(
    low: np.ndarray, high: np.ndarray, preprocess: Preprocess, order: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """factor, shift: float64[C] that take what is fed to 0..1; None when nothing usual does."""
    channels = low.size
    for mean, std in _ways(preprocess, channels, order):
        factor = np.broadcast_to(np.asarray(std, np.float64), (channels,))
        shift = np.broadcast_to(np.asarray(mean, np.float64), (channels,))
        ends = np.stack([low * factor + shift, high * factor + shift])
        for unit in (1.0, 1 / 255, 255.0):
            if 0.25 < ends.max() * unit <= 1.02 and ends.min() * unit >= -0.02:
                return factor * unit, shift * unit
    return None


def _ways(
    preprocess: Preprocess, channels: int, order: str
) -> list[tuple[Sequence[float], Sequence[float]]]:
    """(mean, std) that may have made what is fed: the recipe's, or the usual ones."""
    if preprocess.mean is not None or preprocess.std is not None:
        return [(preprocess.mean or (0.0,), preprocess.std or (1.0,))]
    usual = (_PLAIN, _SIGNED) if channels == 1 else (_PLAIN, _SIGNED, _IMAGENET)
    return [
        (list(_ordered(n.mean, channels, order)), list(_ordered(n.std, channels, order)))
        for n in usual
    ]


def _ordered(values: Sequence[float], channels: int, order: str) -> np.ndarray:
    full = np.broadcast_to(np.asarray(values, np.float64), (channels,))
    return full[::-1] if order == "BGR" else full


def _same(one: Hypothesis, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether it would feed what is fed now, but for two percent of the values' range."""
    moved = max(np.abs(x * one.factor + one.shift - x).max() for x in (low, high))
    return bool(moved <= 0.02 * float((high - low).max()))
