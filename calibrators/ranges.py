"""From a range of real values to integers and back: choose parameters, quantize, dequantize.

Formulas: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 2.1, real = scale * (q - zero_point):

    symmetric     scale = max(|low|, |high|) / (2**(bits - 1) - 1), zero_point = the middle
    asymmetric    scale = (high - low) / (2**bits - 1), zero_point = round(qmin - low / scale),
                  low and high widened to hold zero first, so that 0.0 stays exact

per tensor, per channel (one pair for each index of an axis) or per group (one pair for every
`group_size` neighbours along an axis, at each index of all others: [..., groups, group_size]).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# below this a float32 scale's reciprocal would overflow, and nothing real is that small
_SMALLEST_SCALE = np.float32(2.0**-100)


@dataclass(frozen=True)
class Range:
    """The real interval a tensor's quantized form has to cover."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            raise ValueError(f"range [{self.low}, {self.high}] is not finite")
        if self.low > self.high:
            raise ValueError(f"range low {self.low} lies above high {self.high}")
        # -0.0 equals 0.0 but prints otherwise: which came first must not show in a file
        object.__setattr__(self, "low", self.low + 0.0)
        object.__setattr__(self, "high", self.high + 0.0)


@dataclass(frozen=True)
class Affine:
    """scale: float32, a scalar, [C] along the channel `axis`, or, with a group_size, the shape of
    the values with ceil(size / group_size) along `axis`; zero_point: integer, same shape."""

    scale: np.ndarray
    zero_point: np.ndarray
    qmin: int
    qmax: int
    axis: int | None = None
    group_size: int | None = None

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """round-half-even(x / scale) + zero_point, saturated; the integer type of zero_point."""
        with np.errstate(over="ignore"):  # infinity saturates too
            q = np.rint(x / self._along(self.scale, x.shape))
        q = q + self._along(self.zero_point, x.shape)
        return np.asarray(np.clip(q, self.qmin, self.qmax).astype(self.zero_point.dtype))

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """float32 scale * (q - zero_point)."""
        centred = q.astype(np.int32) - self._along(self.zero_point, q.shape).astype(np.int32)
        return np.asarray(centred.astype(np.float32) * self._along(self.scale, q.shape))

    def _along(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if self.axis is None:
            return values
        if self.group_size is not None:
            each = np.repeat(values, self.group_size, axis=self.axis)
            # the last group may be shorter
            return each[(slice(None),) * self.axis + (slice(shape[self.axis]),)]
        sizes = [1] * len(shape)
        sizes[self.axis] = -1
        return values.reshape(sizes)


@dataclass(frozen=True)
class Integers:
    """An integer type of 2 to 8 bits, stored in a byte: int8, uint8, int4, uint4, ..."""

    bits: int = 8
    signed: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"{self.bits} bits; allowed: 2 to 8")

    @property
    def qmin(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        return self.qmin + (1 << self.bits) - 1

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int8 if self.signed else np.uint8)


def activation_params(range_: Range, dtype: str, symmetric: bool) -> Affine:
    """Per-tensor parameters that represent 0.0 exactly; dtype is "uint8" or "int8".

    A range of zeros only gets scale 1.
    """
    info = np.iinfo(dtype)
    low, high = min(range_.low, 0.0), max(range_.high, 0.0)
    if symmetric:
        zero = 0 if dtype == "int8" else 128
        scale = _scale(max(-low, high) / 127)
    else:
        scale = _scale((high - low) / (info.max - info.min))
        zero = int(np.clip(np.rint(info.min - low / float(scale)), info.min, info.max))
    return Affine(scale, np.asarray(zero, dtype), info.min, info.max)


def weight_params(weights: np.ndarray, axis: int | None, bits: int = 8) -> Affine:
    """Symmetric int8 parameters, one scale per channel of `axis` (one in all for None).

    The range is narrow (-127..127 for 8 bits), so that a weight and its negative round alike.
    A channel of zeros gets scale 1.
    """
    others = tuple(i for i in range(weights.ndim) if i != axis)
    magnitude = np.abs(weights).max(axis=others if axis is not None else None)
    top = 2 ** (bits - 1) - 1
    scale = _scale(np.asarray(magnitude, np.float64) / top)
    return Affine(scale, np.zeros(scale.shape, np.int8), -top, top, axis)


def channel_params(
    x: np.ndarray, axis: int | None, integers: Integers, *, symmetric: bool
) -> Affine:
    """Parameters per index of `axis`, or for all of `x` when it is None."""
    others = tuple(i for i in range(x.ndim) if i != axis) if axis is not None else None
    return _params((x.min(axis=others), x.max(axis=others)), integers, symmetric, axis)


def group_params(
    x: np.ndarray, axis: int, group_size: int, integers: Integers, *, symmetric: bool
) -> Affine:
    """Parameters for every `group_size` neighbours along `axis` (a weight's input axis), at each
    index of the other axes; the last group may be shorter. ValueError for a size below 1."""
    if group_size < 1:
        raise ValueError(f"group size {group_size}; allowed: 1 or more")
    starts = np.arange(0, x.shape[axis], group_size)
    low, high = (f.reduceat(x, starts, axis=axis) for f in (np.minimum, np.maximum))
    return _params((low, high), integers, symmetric, axis, group_size)


def _params(
    extremes: tuple[np.ndarray, np.ndarray],
    integers: Integers,
    symmetric: bool,
    axis: int | None,
    group_size: int | None = None,
) -> Affine:
    low = np.minimum(np.asarray(extremes[0], np.float64), 0.0)
    high = np.maximum(np.asarray(extremes[1], np.float64), 0.0)
    qmin, qmax = integers.qmin, integers.qmax
    if symmetric:
        # narrow, so that a value and its negative round alike
        qmin, middle = qmin + 1, (qmin + qmax + 1) // 2
        scale = _scale(np.maximum(-low, high) / (qmax - middle))
        zero = np.full(scale.shape, middle)
    else:
        scale = _scale((high - low) / (qmax - qmin))
        zero = np.clip(np.rint(qmin - low / scale), qmin, qmax)
    return Affine(scale, zero.astype(integers.dtype), qmin, qmax, axis, group_size)


def _scale(exact: float | np.ndarray) -> np.ndarray:
    scale = np.asarray(exact, np.float32)
    return np.asarray(np.where(scale == 0, np.float32(1), np.maximum(scale, _SMALLEST_SCALE)))
