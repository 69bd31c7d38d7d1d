"""What to observe of a tensor, and where in a run's outputs that comes out."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """What to observe of one tensor.

    axis: a low and a high for each index of that axis; None: one for all of a sample.
    values: at most about so many values taken at equal distances, 0 for none.
    """

    tensor: str
    axis: int | None = None
    values: int = 0


@dataclass(frozen=True)
class Port:
    """Where a result comes out: an output, and which of its channels (stop None: all of it)."""

    name: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Outlets:
    """Where a probe's results come out; low, high and mean are None where `values` is everything.

    mean is None, too, where the extremes of all tensors prove this one finite. bound: the low end
    of a tensor that has no `low`, provided that it is among the values. step: how many of the
    tensor's values each of `values` stands for; None: `told_step` says it. rowed: the first axis of
    every output is the batch. low_negated: `low` gives minus the low end.
    """

    low: Port | None = None
    high: Port | None = None
    mean: Port | None = None
    values: str = ""
    bound: float | None = None
    step: int | None = 1
    told_step: str = ""
    rowed: bool = False
    low_negated: bool = False

    def told(self) -> set[str]:
        """The outputs that are finite if and, but for the mean of huge values, only if every value
        of the tensor is; without a mean, provided that they are small, and other tensors' too."""
        ports = (self.low, self.high, self.mean)
        return {port.name for port in ports if port is not None} or {self.values}

    @property
    def proven(self) -> bool:
        """Whether what was seen of all tensors proves this one finite, as it has no mean."""
        return self.high is not None and self.mean is None


def grid(channels: int, height: int, width: int, most: int) -> tuple[int, int]:
    """The finest strides over height and width, as alike as can be, that leave `most` values."""
    high, wide = 1, 1
    while channels * -(-height // high) * -(-width // wide) > most:
        if -(-height // high) >= -(-width // wide):
            high += 1
        else:
            wide += 1
    return high, wide


def coprime(step: int, size: int) -> int:
    """The smallest step from `step` up that shares no factor with size, so that it doesn't keep to
    some columns or channels of a map."""
    while step > 1 and math.gcd(step, size) > 1:
        step += 1
    return step
