"""What is fed: its layout, its shape, and the labels it is judged by."""

from __future__ import annotations

import numpy as np

from deploy.artifacts.audit import Finding
from deploy.artifacts.model import TensorSpec
from deploy.suspects.evidence import Evidence

_CHANNELS = (1, 3, 4)
_SHIFTED_RIGHT = 0.5


def layout(case: Evidence) -> Finding | None:
    """Pictures laid out otherwise than the model reads them."""
    for spec in case.model.inputs:
        if len(spec.shape) != 4 or spec.dtype.kind not in "fu":
            continue
        first, last = spec.shape[1] in _CHANNELS, spec.shape[3] in _CHANNELS
        reads = "NHWC" if last and not first else "NCHW" if first and not last else ""
        if reads and reads != case.recipe.layout and not case.recipe.fold_input:
            return Finding(
                "wrong layout",
                "warn",
                f"input {spec.name!r} is {spec}, so it takes {reads}; --layout is "
                f"{case.recipe.layout}",
                "a picture whose rows are read as channels is noise to a network",
                f"give --layout {reads}",
            )
    return None


def shapes(case: Evidence) -> Finding | None:
    """Samples or batches that the engine wasn't built for."""
    if case.engine is None:
        return None
    for spec in case.engine.inputs:
        got = case.samples[0].feeds.get(spec.name)
        if got is not None and not _fits(spec, got.shape):
            return Finding(
                "shape mismatch",
                "warn",
                f"the engine takes {spec}, a sample has {list(got.shape)}",
                "an engine of fixed shapes runs nothing else",
                "prepare the samples so, or build with --shape or --batch dynamic",
            )
    return None


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    pairs = list(zip(spec.shape[1:], shape[1:], strict=False))
    return len(spec.shape) == len(shape) and all(a is None or a == b for a, b in pairs)


def labels(case: Evidence) -> Finding | None:
    """Labels that count classes from another number."""
    known = [s.label for s in case.samples]
    if case.scores is None or len(known) < 8 or any(label is None for label in known):
        return None
    given = np.array([int(out[case.scores].reshape(-1).argmax()) for out in case.outputs])
    wanted = np.array([-1 if label is None else label for label in known])
    right = {by: float((given == wanted + by).mean()) for by in (-1, 0, 1)}
    best = max(right, key=lambda by: right[by])
    if best == 0 or right[best] < _SHIFTED_RIGHT or right[best] < 2 * right[0]:
        return None
    return Finding(
        "labels off by one",
        "warn",
        f"labels agree in {right[0]:.0%}, and moved by {best:+d} in {right[best]:.0%}",
        "the data counts its classes from another number than the model does",
        f"add {best:+d} to every label (a background class, or counting from 1)",
    )
