"""A folder of .npz files: data sets written in parts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from pathlib import Path

from calibrators.datasets import images, npz
from calibrators.samples import Dataset, DatasetSpec, Sample


class _Parts:
    def __init__(self, parts: Sequence[Dataset]) -> None:
        self._parts = parts
        self.splits: Sequence[str | None] = [split for part in parts for split in part.splits]
        self._starts = [0, *accumulate(len(part.splits) for part in parts)]

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        for n, group in groupby(indices, lambda i: bisect_right(self._starts, i) - 1):
            yield from self._parts[n].read([i - self._starts[n] for i in group])


def accepts(uri: str) -> bool:
    """Whether uri is a folder with .npz files and no image in it."""
    return Path(uri).is_dir() and not images.accepts(uri)


def open(uri: str, spec: DatasetSpec) -> Dataset:
    """The samples of all .npz files of a folder, by file name; each file as dataset npz has it.

    Opening reads the arrays' headers, labels and splits only; samples are checked when read.
    """
    files = sorted(Path(uri).glob("*.npz"), key=lambda path: path.name)
    if not files:
        raise ValueError(f"0 .npz files in {uri}; put at least one in")
    return _Parts([npz.open(str(path), spec) for path in files])
