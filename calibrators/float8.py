"""From a range of real values to float8 and back: E4M3, 4 bits of exponent and 3 of mantissa.

    scale = max(|low|, |high|) / 448,   real = scale * q,   q of -448..448, without infinity

Neighbours are 2**(e - 3) apart between 2**e and 2**(e + 1), down to e = -6: a value keeps its
relative precision over 15 binades, so the scale only says where they lie. It is rounded up to a
normal number of float16, which a graph in float16 can hold without losing any of it.

Source: Micikevicius et al. 2022, "FP8 Formats for Deep Learning", sections 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibrators.ranges import Range

LARGEST = 448.0
_MANTISSA = 3
_LOWEST_EXPONENT = -6
_SMALLEST_HALF = 2.0**-14  # float16's smallest normal number


@dataclass(frozen=True)
class Float8:
    """scale: float32, a scalar or [C] along `axis`."""

    scale: np.ndarray
    axis: int | None = None

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """float32: x / scale at the nearest E4M3 number, ties to even, saturated."""
        ratio = np.clip(np.asarray(x, np.float32) / self._along(x.shape), -LARGEST, LARGEST)
        step = _spacing(ratio)
        return np.asarray(np.rint(ratio / step) * step, np.float32)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """float32 scale * q."""
        return np.asarray(q * self._along(q.shape), np.float32)

    def steps(self, x: np.ndarray) -> np.ndarray:
        """float32: how far apart neighbours of x are."""
        scale = self._along(x.shape)
        return np.asarray(_spacing(np.asarray(x, np.float32) / scale) * scale, np.float32)

    def _along(self, shape: tuple[int, ...]) -> np.ndarray:
        if self.axis is None:
            return self.scale
        sizes = [1] * len(shape)
        sizes[self.axis] = -1
        return self.scale.reshape(sizes)


def float8_activation(range_: Range) -> Float8:
    """One scale for a tensor; a range of zeros only gets scale 1."""
    return Float8(_scale(max(-range_.low, range_.high)))


def float8_weight(weights: np.ndarray, axis: int | None) -> Float8:
    """One scale per channel of `axis`, or one in all; a channel of zeros gets scale 1."""
    others = tuple(i for i in range(weights.ndim) if i != axis)
    magnitude = np.abs(weights).max(axis=others if axis is not None else None)
    return Float8(_scale(magnitude), axis)


def _spacing(ratio: np.ndarray) -> np.ndarray:
    """The distance between neighbours in E4M3, at each value."""
    # frexp has a mantissa of 0.5 to 1: its exponent is one more than that of 1 to 2
    exponent = np.frexp(ratio)[1] - 1
    return np.asarray(np.ldexp(np.float32(1), np.maximum(exponent, _LOWEST_EXPONENT) - _MANTISSA))


def _scale(magnitude: float | np.ndarray) -> np.ndarray:
    exact = np.asarray(magnitude, np.float64) / LARGEST
    top = np.finfo(np.float16).max
    half = np.minimum(exact, float(top)).astype(np.float16)
    # the nearest one may lie below, and the largest value then beyond the end
    with np.errstate(over="ignore"):
        above = np.where(half < exact, np.nextafter(half, np.float16(np.inf)), half)
    kept = np.clip(above, np.float16(_SMALLEST_HALF), top).astype(np.float32)
    # float16 holds neither such values nor their scale: the layer stays in float32
    wide = np.where(exact > float(top), exact.astype(np.float32), kept)
    return np.asarray(np.where(exact == 0, np.float32(1), wide), np.float32)
