"""Folded weights in the type the model stores, where that type can hold them.

A fold multiplies weights in float64. What it gives may lie outside of the stored type: above its
largest number, or (float16 ends at 6e-5, in steps of 6e-8 below) where few digits or none are left.
"""

from __future__ import annotations

import math

import numpy as np

from deploy.surgery.rewrite import Skip

# rounding alone costs half a unit in the last place
_ULPS = 4
# no input is larger in float16, nor in any network that works
_LARGEST_INPUT = 65504


def representable(
    values: np.ndarray, dtype: np.dtype, *channels: tuple[int, ...], how: str = "folded"
) -> np.ndarray | Skip:
    """The weights as `dtype`; Skip where a channel of them would lose digits.

    values: float64. channels: the axes that tell one channel from another, for every way to divide
    the weights into channels. The loss of a channel is measured against its largest weight, and
    doesn't count where no input makes a normal number of it (PP-OCRv4 has channels of 1e-40).
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        return Skip(f"the {how} weights would not be finite")
    error = np.abs(cast.astype(np.float64) - values)
    error[error * _LARGEST_INPUT < _smallest_normal(dtype)] = 0
    for axes in channels:
        others = tuple(axis for axis in range(values.ndim) if axis not in axes)
        largest = np.abs(values).max(others, initial=0)
        lost = error.max(others, initial=0)
        if (lost > _ULPS * _ulp(dtype) * largest).any():
            worst = float((lost / np.where(largest == 0, math.inf, largest)).max())
            return Skip(
                f"the {how} weights are too small for {dtype}, which loses {worst:.2g} of a channel"
            )
    return cast


def _smallest_normal(dtype: np.dtype) -> float:
    """Below it a number has fewer digits; bfloat16, which NumPy doesn't know, goes as far down as
    float32.
    """
    return float(np.finfo(dtype if dtype.kind == "f" else np.float32).tiny)


def _ulp(dtype: np.dtype) -> float:
    """The distance from 1 to the next number; also for types that NumPy itself doesn't know."""
    one, two = np.ones(1, dtype), np.full(1, 2, dtype)
    return float(np.nextafter(one, two).astype(np.float64)[0]) - 1
