"""From a range of real values to integers and back: choose parameters, quantize, dequantize.

Formulas: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 2.1: real = scale * (q - zero_point).
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
    """scale: float32, scalar or [C]; zero_point: integer, same shape; axis: the channel axis."""

    scale: np.ndarray
    zero_point: np.ndarray
    qmin: int
    qmax: int
    axis: int | None = None

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """round-half-even(x / scale) + zero_point, saturated; the integer type of zero_point."""
        with np.errstate(over="ignore"):  # infinity saturates too
            q = np.rint(x / self._along(self.scale, x.ndim))
        q = q + self._along(self.zero_point, x.ndim)
        return np.asarray(np.clip(q, self.qmin, self.qmax).astype(self.zero_point.dtype))

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """float32 scale * (q - zero_point)."""
        centred = q.astype(np.int32) - self._along(self.zero_point, q.ndim).astype(np.int32)
        return np.asarray(centred.astype(np.float32) * self._along(self.scale, q.ndim))

    def _along(self, values: np.ndarray, rank: int) -> np.ndarray:
        if self.axis is None:
            return values
        shape = [1] * rank
        shape[self.axis] = -1
        return values.reshape(shape)


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


def _scale(exact: float | np.ndarray) -> np.ndarray:
    scale = np.asarray(exact, np.float32)
    return np.asarray(np.where(scale == 0, np.float32(1), np.maximum(scale, _SMALLEST_SCALE)))
