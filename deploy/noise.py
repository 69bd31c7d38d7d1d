"""Seeded inputs where no data is: they show equal arithmetic, and say nothing of the task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deploy.artifacts.model import TensorSpec

# what a free dimension other than the batch gets: enough for five halvings of an image
FREE_SIZE = 64
_SEED = 20261120


def seeded_feeds(inputs: Sequence[TensorSpec], number: int = 0) -> dict[str, np.ndarray]:
    """The same ordinary values every time for the same number: normal floats, ones for integers.

    A free batch axis has 1, every other free one FREE_SIZE.
    """
    random = np.random.default_rng([_SEED, number])
    batch = next((spec.labels[0] for spec in inputs if spec.labels and spec.labels[0]), None)
    feeds = {}
    for spec in inputs:
        labels = spec.labels or ("",) * len(spec.shape)
        shape = [
            size or (1 if axis == 0 or (label and label == batch) else FREE_SIZE)
            for axis, (size, label) in enumerate(zip(spec.shape, labels, strict=True))
        ]
        if spec.dtype.kind == "f":
            feeds[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        else:
            feeds[spec.name] = np.ones(shape, spec.dtype)
    return feeds


def free_dimensions(inputs: Sequence[TensorSpec]) -> bool:
    """Whether an input has a free dimension besides the batch, so that a size was made up."""
    return any(None in spec.shape[1:] for spec in inputs)
