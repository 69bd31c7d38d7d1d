"""What a dataset yields, and what it is told about the model that will read it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from calibrators.preprocess import Preprocess
from calibrators.truths import Truth, digest


@dataclass(frozen=True)
class InputSpec:
    """One model input. `shape` has None where a dimension is free, the batch axis included.

    An input whose first axis has a size above 1 isn't batched (a recurrent state): every
    sample brings all of it. `fixed` is the model's own size of a first axis taken as the batch: a
    sample may also bring all of that.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    fixed: int | None = None

    @property
    def whole(self) -> bool:
        return not self.shape or self.shape[0] not in (None, 1)


@dataclass(frozen=True)
class DatasetSpec:
    """What the samples are read for: the model's inputs and how raw data becomes them.

    `keys` maps a model input's name, or "labels", to the key it has in the data.
    """

    inputs: tuple[InputSpec, ...]
    preprocess: Preprocess = field(default_factory=Preprocess)
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One sample: `feeds[input]` has the model's rank, where it is batched with length 1.

    label: a class number. truth: anything else it is known to be.
    """

    name: str
    feeds: dict[str, np.ndarray]
    label: int | None = None
    split: str | None = None
    truth: Truth | None = None

    def identity(self) -> str:
        """What it is fed and what it is known to be, as one line that starts with `sha256`."""
        known = f" {digest(self.truth)}" if self.truth is not None else ""
        return f"{self.sha256()} {self.label}{known}"

    def sha256(self) -> str:
        """The hash of what the model is fed (names, dtypes, shapes, bytes), not of the file."""
        digest = hashlib.sha256()
        for name in sorted(self.feeds):
            x = np.ascontiguousarray(self.feeds[name])
            digest.update(f"{name}\0{x.dtype.str}\0{x.shape}\0".encode())
            digest.update(x.data if x.size else b"")
        return digest.hexdigest()


class Dataset(Protocol):
    """Samples in a fixed order, read one at a time and as often as asked, never all at once.

    `splits[i]` is sample i's split ("calib", "test", … or None), known without reading it.
    """

    @property
    def splits(self) -> Sequence[str | None]: ...

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        """The samples at those ascending indices."""
        ...


def evenly_spaced(indices: Sequence[int], count: int) -> list[int]:
    """`count` of the indices, spread over the whole sequence: files sorted by class stay mixed."""
    if count >= len(indices):
        return list(indices)
    return [indices[i * len(indices) // count] for i in range(count)]
