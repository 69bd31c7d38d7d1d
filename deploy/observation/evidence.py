"""What an equalization may ask about the graph it is given: measured ranges, kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import length_hint
from typing import Protocol, runtime_checkable

import numpy as np

from calibrators.samples import Sample, evenly_spaced
from deploy.artifacts.model import Model
from deploy.observation.observe import ChannelRange, channel_ranges

# from so many samples on, other samples reach hardly further than they did
_ENOUGH = 128
_HALF_ENOUGH = 64

Place = tuple[str, int]
Change = Callable[[ChannelRange, np.ndarray], ChannelRange]


@runtime_checkable
class _Spread(Protocol):
    """Samples of which some can be read without the others."""

    def spread(self, count: int) -> Iterable[Sample]: ...


@dataclass
class Evidence:
    """Ranges of the graph as it is now, measured once on the model it was made from.

    symmetric: activations will be quantized symmetrically around zero. also: tensors that are
    measured along with the first ones asked for, as the next equalization will want them.

    An equalization says with `scaled` and `shifted` what it did to every tensor; what was measured
    before follows exactly, so that samples are read once and not once per equalization. Behind one
    that says nothing, everything is measured anew.
    """

    model: Model
    samples: Iterable[Sample]
    symmetric: bool = False
    also: Sequence[str] = ()
    _measured: dict[Place, ChannelRange] = field(default_factory=dict)
    _apart: dict[Place, np.ndarray] = field(default_factory=dict)
    _changes: list[tuple[Change, Place, np.ndarray]] = field(default_factory=list)

    def ranges(self, tensors: Sequence[str], axis: int = 1) -> Mapping[str, ChannelRange]:
        """Smallest and largest value per channel, over all samples."""
        missing = [t for t in dict.fromkeys(tensors) if (t, axis) not in self._measured]
        if missing:
            also = () if axis != 1 or self._measured else self.also
            self._measure(dict.fromkeys([*missing, *also], axis))
        return {t: self._measured[t, axis] for t in tensors}

    @property
    def count(self) -> int:
        """How many samples were given."""
        return length_hint(self.samples)

    def some(self, count: int) -> list[Sample]:
        """At most `count` samples, spread over all of them."""
        if isinstance(self.samples, _Spread):
            return list(self.samples.spread(count))
        held = list(self.samples)
        return [held[i] for i in evenly_spaced(range(len(held)), count)]

    def headroom(self, tensor: str, axis: int = 1) -> np.ndarray:
        """float64[C]: how much further than was seen each channel may reach on other samples.

        What two halves of the samples differ by, times 64 / samples, and 0 from 128 samples on.
        Measured: without it 16 to 64 samples of small maps lose 3 to 6 dB by equalization, as every
        channel then clips what it hadn't seen.
        """
        return self._apart.get((tensor, axis), np.zeros(1))

    def scaled(self, factors: Mapping[str, np.ndarray], axis: int = 1) -> None:
        """Tensors now hold their values times factors: float64[C] above 0 each, by name."""
        self._change(_times, factors, axis)

    def shifted(self, constants: Mapping[str, np.ndarray], axis: int = 1) -> None:
        """Tensors now hold their values plus constants: float64[C] each, by name."""
        self._change(_plus, constants, axis)

    @property
    def told(self) -> int:
        """How many changes equalizations have told of."""
        return len(self._changes)

    def _measure(self, tensors: Mapping[str, int]) -> None:
        new = {(n, tensors[n]): seen for n, seen in self._seen(tensors).items()}
        for change, place, values in self._changes:
            if place in new:
                new[place] = change(new[place], values)
        self._measured.update(new)

    def _seen(self, tensors: Mapping[str, int]) -> Mapping[str, ChannelRange]:
        if self.count >= _ENOUGH:
            return channel_ranges(self.model, self.samples, tensors)
        samples = list(self.samples)
        whole = channel_ranges(self.model, samples, tensors)
        if len(samples) > 1:
            halves = [channel_ranges(self.model, samples[i::2], tensors) for i in (0, 1)]
            for name, axis in tensors.items():
                one, two = (half[name] for half in halves)
                apart = np.maximum(np.abs(one.low - two.low), np.abs(one.high - two.high))
                self._apart[name, axis] = apart.astype(np.float64) * _HALF_ENOUGH / len(samples)
        return whole

    def _change(self, change: Change, values: Mapping[str, np.ndarray], axis: int) -> None:
        for name, by_channel in values.items():
            place = name, axis
            self._changes.append((change, place, by_channel))
            if place in self._measured:
                self._measured[place] = change(self._measured[place], by_channel)


def _times(seen: ChannelRange, factors: np.ndarray) -> ChannelRange:
    return ChannelRange(*((end * factors).astype(end.dtype) for end in (seen.low, seen.high)))


def _plus(seen: ChannelRange, constants: np.ndarray) -> ChannelRange:
    return ChannelRange(*((end + constants).astype(end.dtype) for end in (seen.low, seen.high)))
