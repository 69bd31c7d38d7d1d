"""What the tensors hold: nothing finite, nothing that changes, or only the ends of a range."""

from __future__ import annotations

import numpy as np

from deploy.artifacts.audit import Finding
from deploy.ladder.tensors import makers
from deploy.suspects.evidence import Evidence, some

# of a tensor's channels or values
_MOST_DEAD, _MOST_PINNED = 0.5, 0.95
_BOUNDED = ("Sigmoid", "HardSigmoid", "Tanh", "Clip")


def not_finite(case: Evidence) -> Finding | None:
    """The first tensor that holds NaN or Inf."""
    for name, operator in makers(case.model).items():
        if any(name in t and not np.isfinite(_floats(t[name])).all() for t in case.tensors):
            return Finding(
                "not finite",
                "warn",
                f"{name!r} ({operator}) is the first tensor with NaN or Inf",
                "all behind it is lost, and no range covers it",
                "look at its inputs: a division by zero, a log of zero, an overflow",
            )
    return None


def dead(case: Evidence) -> Finding | None:
    """Tensors and channels that are the same whatever is fed."""
    whole, parts = [], []
    for name, operator in makers(case.model).items():
        held = [t[name] for t in case.tensors if name in t]
        if len(held) < 2 or held[0].dtype.kind != "f" or held[0].size < 2:
            continue
        if len({x.shape for x in held}) > 1:
            continue
        stacked = np.stack([x.astype(np.float64) for x in held])
        if float(np.ptp(stacked)) == 0.0:
            whole.append(f"{name} ({operator})")
        elif stacked.ndim > 3:
            still = np.ptp(np.moveaxis(stacked, 2, 0).reshape(stacked.shape[2], -1), axis=1) == 0
            if still.mean() > _MOST_DEAD:
                parts.append(f"{name} ({still.mean():.0%} of {still.size} channels)")
    if not whole and not parts:
        return None
    return Finding(
        "dead tensors",
        "warn" if whole else "note",
        f"the same value for every sample: {some([*whole, *parts])}",
        "such layers do nothing: weights that failed to load, or inputs far from training's",
        "check the export and the preprocessing",
    )


def saturated(case: Evidence) -> Finding | None:
    """Bounded activations that are at their ends nearly everywhere."""
    found = []
    for name, operator in makers(case.model).items():
        if operator not in _BOUNDED:
            continue
        held = [t[name].astype(np.float64).reshape(-1) for t in case.tensors if name in t]
        values = np.concatenate(held) if held else np.zeros(0)
        if values.size < 2 or np.ptp(values) == 0:
            continue
        low, high = values.min(), values.max()
        near = 1e-3 * (high - low)
        ends = float(((values <= low + near) | (values >= high - near)).mean())
        # a one-sided Clip is a ReLU: zeros are no sign of anything
        top = float((values >= high - near).mean())
        if ends > _MOST_PINNED and top > 1 - _MOST_PINNED:
            found.append(f"{name} ({ends:.0%})")
    if not found:
        return None
    return Finding(
        "saturated tensors",
        "warn",
        f"nearly all values at the ends of their range: {some(found)}",
        "inputs much larger than in training do that, such as pixels of 0..255 for 0..1",
        "check --scale, --mean and --std",
    )


def constant_outputs(case: Evidence) -> Finding | None:
    """Outputs that don't depend on the input."""
    if len(case.outputs) < 2:
        return None
    for name, first in case.outputs[0].items():
        if all(np.array_equal(first, other[name]) for other in case.outputs[1:]):
            return Finding(
                "constant output",
                "warn",
                f"output {name!r} is the same for all {len(case.outputs)} samples",
                "the network doesn't look at its input",
                "check that the samples differ, then look for a dead tensor in front of it",
            )
    return None


def _floats(x: np.ndarray) -> np.ndarray:
    return x if x.dtype.kind == "f" else np.zeros(1)
