"""Samples put together as an engine wants them, and its outputs taken apart again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

from calibrators.samples import Sample
from deploy.artifacts.model import TensorSpec

T = TypeVar("T")


def fixed_batch(inputs: Sequence[TensorSpec]) -> int:
    """How many samples one run takes: the first dimension of the inputs, 1 where it is free."""
    return max((spec.shape[0] or 1 for spec in inputs if spec.shape), default=1)


def groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items in order, the last one maybe shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def feeds_of(samples: Sequence[Sample], batch: int) -> dict[str, np.ndarray]:
    """One batch; a batch that isn't full repeats its last sample, whose results are ignored."""
    padded = [*samples, *[samples[-1]] * (batch - len(samples))]
    if len(padded) == 1:
        return dict(padded[0].feeds)
    return {
        name: np.concatenate([sample.feeds[name] for sample in padded]) for name in padded[0].feeds
    }


def rows(x: np.ndarray, index: int, batch: int) -> np.ndarray:
    """Sample `index` of a batched tensor; the whole tensor when it has no batch axis."""
    if batch == 1 or x.ndim == 0 or x.shape[0] != batch:
        return x
    return x[index : index + 1]
