"""A .npz file keyed by input name, or a .npy file for a model with one input."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from calibrators import feeds
from calibrators.samples import Dataset, DatasetSpec, Sample
from calibrators.truths import LabelMap

# RuntimeError: what zipfile raises for an encrypted member; NotImplementedError is one of them
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, UnicodeDecodeError)
# NumPy parses the header as Python text and lets these through
_BAD_HEADER = (ValueError, SyntaxError, tokenize.TokenError)


@dataclass(frozen=True)
class _Array:
    """One stored array: what its header says. Its rows are read one at a time."""

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int

    def whole(self) -> np.ndarray:
        with _stream(self.path, self.member) as stream:
            try:
                x: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
            except _BAD_HEADER as error:
                raise _unreadable(self.path, str(error)) from error
        return x

    def rows(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        if self.fortran:  # a row lies all over the file
            whole = self.whole()
            yield from (whole[i] for i in indices)
            return
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        with _stream(self.path, self.member) as stream:
            for i in indices:
                stream.seek(self.start + i * size)
                data = stream.read(size)
                if len(data) != size:
                    raise _unreadable(self.path, f"{len(data)} bytes of {size} for sample {i}")
                yield np.ndarray(self.shape[1:], self.dtype, data)


@dataclass(frozen=True)
class _Npz:
    name: str
    spec: DatasetSpec
    arrays: Mapping[str, _Array]
    labels: Sequence[int] | None
    splits: Sequence[str | None]
    maps: _Array | None = None

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        rows = zip(*(self.arrays[i.name].rows(indices) for i in self.spec.inputs), strict=True)
        for i, raws in zip(indices, rows, strict=True):
            name = f"{self.name}[{i}]"
            feed = {}
            for spec, raw in zip(self.spec.inputs, raws, strict=True):
                where = f"key {self.spec.keys.get(spec.name, spec.name)!r} of {name}"
                feed[spec.name] = feeds.feed(raw, spec, self.spec.preprocess, where)
            label = self.labels[i] if self.labels else None
            yield Sample(name, feed, label, self.splits[i], self._map(i))

    def _map(self, index: int) -> LabelMap | None:
        if self.maps is None:
            return None
        return LabelMap(next(self.maps.rows([index])).astype(np.int64))


def accepts(uri: str) -> bool:
    """Whether uri is a .npz or .npy file."""
    return Path(uri).suffix.lower() in (".npz", ".npy") and Path(uri).is_file()


def open(uri: str, spec: DatasetSpec) -> Dataset:
    """The samples along the first axis of the arrays, read one at a time.

    Each model input has its array, under its own name or the one in spec.keys. A sample of the
    model's rank less one gets the batch axis; one of the model's rank must have a first axis of
    length 1. Labels, 1-D integer: the key of spec.keys["labels"], else labels, else the first of
    label and y that is that and that no input uses. `split`, optional: one string per sample.
    `maps`, optional: integers [N, H, W], the class of every pixel.
    """
    path = Path(uri)
    feeds.check(spec)
    found = _arrays(path, spec)
    arrays = {i.name: found[feeds.find_key(spec, i.name, found, str(path))] for i in spec.inputs}
    used = {spec.keys.get(i.name, i.name) for i in spec.inputs}
    label_key = _label_key(spec, found, used, path)
    has_split = "split" in found and "split" not in used
    maps = found.get("maps") if "maps" not in used else None
    if maps is not None and (len(maps.shape) != 3 or maps.dtype.kind not in "iu"):
        raise ValueError(
            f"{maps.dtype} of shape {list(maps.shape)} for key 'maps' of {path}; allowed: integers"
            " [N, H, W], or another name for the key"
        )
    keys = [*used, *([label_key] if label_key else []), *(["split"] if has_split else [])]
    keys += ["maps"] if maps is not None else []
    count = _count({key: found[key] for key in sorted(keys)}, path)
    splits: list[str | None] = [None] * count
    if has_split:
        if found["split"].dtype.kind != "U":
            raise ValueError(
                f"{found['split'].dtype} values for key 'split' of {path}; allowed: strings (U)"
            )
        splits = [str(s) or None for s in found["split"].whole()]
    labels = None
    if label_key:
        values = enumerate(found[label_key].whole())
        labels = [feeds.label(v, f"key {label_key!r} of {path.name}[{i}]") for i, v in values]
    return _Npz(path.name, spec, arrays, labels, splits, maps)


def _arrays(path: Path, spec: DatasetSpec) -> dict[str, _Array]:
    if path.suffix.lower() == ".npy":
        if len(spec.inputs) != 1:
            raise ValueError(
                f"one array in {path}, but the model has {len(spec.inputs)} inputs"
                f" ({', '.join(i.name for i in spec.inputs)}); store them by name in a .npz"
            )
        only = spec.inputs[0].name
        return {spec.keys.get(only, only): _header(path, None)}
    with _named(path), zipfile.ZipFile(path) as archive:
        members = [m for m in archive.namelist() if m.endswith(".npy")]
    return {m.removesuffix(".npy"): _header(path, m) for m in members}


def _header(path: Path, member: str | None) -> _Array:
    with _stream(path, member) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except _BAD_HEADER as error:
            raise ValueError(
                f"no NumPy array in {member or 'the file'} of {path}; save with numpy.savez"
            ) from error
        if dtype.hasobject:
            raise ValueError(
                f"object array in {member or 'the file'} of {path}; pickles are never loaded:"
                " save arrays of numbers"
            )
        return _Array(path, member, shape, dtype, fortran, stream.tell())


def _label_key(
    spec: DatasetSpec, found: Mapping[str, _Array], used: set[str], path: Path
) -> str | None:
    def is_label(key: str) -> bool:
        return len(found[key].shape) == 1 and found[key].dtype.kind in "iu"

    # `labels` is meant as such; `label` and `y` may be anything
    if "labels" not in spec.keys and ("labels" not in found or "labels" in used):
        usual = (k for k in ("label", "y") if k in found and k not in used)
        return next((k for k in usual if is_label(k)), None)
    key = feeds.find_key(spec, "labels", found, str(path))
    if not is_label(key):
        raise ValueError(
            f"{found[key].dtype} of shape {list(found[key].shape)} for the labels, key {key!r}"
            f" of {path}; allowed: one integer per sample, or another name for the key"
        )
    return key


def _count(arrays: Mapping[str, _Array], path: Path) -> int:
    for key, array in arrays.items():
        if not array.shape:
            raise ValueError(f"a single number for key {key!r} of {path}; add a first axis")
    counts = {key: array.shape[0] for key, array in arrays.items()}
    if len(set(counts.values())) != 1:
        text = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise ValueError(f"different sample counts in {path}: {text}; make them equal")
    if 0 in counts.values():
        raise ValueError(f"0 samples in {path}; store at least one along the first axis")
    return next(iter(counts.values()))


@contextmanager
def _stream(path: Path, member: str | None) -> Iterator[IO[bytes]]:
    with _named(path):
        if member is None:
            with path.open("rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
                yield stream


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, reason: str) -> ValueError:
    reason = " ".join(reason.split())
    return ValueError(f"unreadable {path} ({reason}); truncated? write or copy it again")
