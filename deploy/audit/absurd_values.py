"""Inputs so large that no usual preparation gives them: a factor applied twice, or raw bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deploy.artifacts.audit import Finding
from deploy.audit.moments import Moments

# root mean square; 16-bit sound and 16-bit pictures, the widest that networks take as they are, end
# at 65,535, and so does float16
_ABSURD = 1e6
# of the squared width: what rounding leaves of zero
_ROUNDING = 1e-6


def absurd_values(calibration: Mapping[str, Moments]) -> Finding | None:
    """The input with the largest values, where these are beyond anything usual."""
    large = {name: _typical(one) for name, one in calibration.items() if not _two_valued(one)}
    name = max(large, key=lambda each: large[each], default="")
    if not name or large[name] <= _ABSURD:
        return None
    one = calibration[name]
    return Finding(
        "absurdly large inputs",
        "warn",
        f"input {name!r} holds values of about {large[name]:.1g} ({one.low.min():.3g} to "
        f"{one.high.max():.3g})",
        "networks are trained on values around 1, rarely beyond thousands; these drown every bias "
        "and leave the range of float16",
        "check --scale and --std, and what was already applied to ready data",
    )


def _typical(one: Moments) -> float:
    """The median sample's root mean square."""
    return float(np.sqrt(np.median(one.square.mean(axis=1))))


def _two_valued(one: Moments) -> bool:
    """Whether nothing lies between lowest and highest: a mask, whose -1e9 is meant. Then the mean
    of (x - low) (high - x) is zero."""
    low, high = one.low.min(axis=0), one.high.max(axis=0)
    between = one.mean.mean(axis=0) * (low + high) - low * high - one.square.mean(axis=0)
    return bool((np.abs(between) <= _ROUNDING * (high - low) ** 2).all())
