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
    """How many samples one run takes: the first dimension where all inputs share it, else 1."""
    first = {spec.shape[0] for spec in inputs if spec.shape}
    return first.pop() or 1 if len(first) == 1 else 1


def whole_inputs(inputs: Sequence[TensorSpec]) -> set[str]:
    """Inputs without a batch axis: scalars, and those whose first size isn't the batch's."""
    batch = fixed_batch(inputs)
    return {spec.name for spec in inputs if not spec.shape or spec.shape[0] not in (None, batch)}


def groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items in order, the last one maybe shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def batches(
    samples: Iterable[Sample], inputs: Sequence[TensorSpec]
) -> Iterator[tuple[list[Sample], int]]:
    """Samples as one run takes them, with the batch size: as many as the model fixes.

    A sample that brings the whole of a fixed first axis is a run of its own: there the axis was no
    batch (a sequence), which only the data shows.
    """
    size = fixed_batch(inputs)
    waiting: list[Sample] = []
    for sample in samples:
        if size > 1 and _is_whole(sample, inputs, size):
            yield [sample], 1
            continue
        waiting.append(sample)
        if len(waiting) == size:
            yield waiting, size
            waiting = []
    if waiting:
        yield waiting, size


def _is_whole(sample: Sample, inputs: Sequence[TensorSpec], size: int) -> bool:
    fed = [sample.feeds[spec.name] for spec in inputs if spec.shape and spec.name in sample.feeds]
    return any(x.shape[:1] == (size,) for x in fed)


def feeds_of(samples: Sequence[Sample], batch: int) -> dict[str, np.ndarray]:
    """One batch; a batch that isn't full repeats its last sample, whose results are ignored."""
    padded = [*samples, *[samples[-1]] * (batch - len(samples))]
    if len(padded) == 1:
        return dict(padded[0].feeds)
    # a scalar beside batched inputs is a setting, such as a sampling rate: the first one's holds
    return {
        name: np.concatenate([sample.feeds[name] for sample in padded]) if x.ndim else x
        for name, x in padded[0].feeds.items()
    }


def single_run(inputs: Sequence[TensorSpec], samples: Iterable[Sample]) -> dict[str, np.ndarray]:
    """The feeds of one run, from the first samples: the inputs that are asked for, no others."""
    group, size = next(batches(samples, inputs))
    feeds = feeds_of(group, size)
    return {spec.name: feeds[spec.name] for spec in inputs}


def rows(x: np.ndarray, index: int, batch: int) -> np.ndarray:
    """Sample `index` of a batched tensor; the whole tensor when it has no batch axis."""
    if batch == 1 or x.ndim == 0 or x.shape[0] != batch:
        return x
    return x[index : index + 1]
