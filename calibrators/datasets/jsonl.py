"""A .jsonl file: a sample per line, or two with a score that says how alike they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibrators import feeds
from calibrators.samples import Dataset, DatasetSpec, InputSpec, Sample
from calibrators.truths import PairScore

# an input that the lines don't have, by the end of its name, is filled with this
_FILLED = {"mask": 1, "token_type_ids": 0, "segment_ids": 0}
_HALVES = ("_a", "_b")


@dataclass(frozen=True)
class _Place:
    """Which line a sample is of, and which half of it, "" for the whole line."""

    line: int
    half: str
    start: int
    split: str | None


class _Jsonl:
    def __init__(self, path: Path, spec: DatasetSpec) -> None:
        self._path, self._spec = path, spec
        # all first halves, then all second ones: evenly spaced samples are whole pairs then
        self._places = sorted(self._found(), key=lambda place: place.half)
        if not self._places:
            raise ValueError(f"0 lines in {path}; write a JSON object per line")
        self.splits: Sequence[str | None] = [place.split for place in self._places]

    def _found(self) -> Iterator[_Place]:
        start = 0
        with self._path.open("rb") as file:
            for number, text in enumerate(file):
                if text.strip():
                    row = self._parsed(text, number)
                    split = None if self._is_input("split") else row.get("split")
                    halves = _HALVES if "score" in row else ("",)
                    yield from (_Place(number, half, start, split) for half in halves)
                start += len(text)

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        with self._path.open("rb") as file:
            for index in indices:
                place = self._places[index]
                file.seek(place.start)
                yield self._sample(place, self._parsed(file.readline(), place.line))

    def _parsed(self, text: bytes, number: int) -> Mapping[str, Any]:
        try:
            row = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{error}, in {self._path} line {number + 1}; write JSON") from error
        if not isinstance(row, Mapping):
            raise ValueError(
                f"{type(row).__name__} in {self._path} line {number + 1}; a line is an object"
            )
        return row

    def _sample(self, place: _Place, row: Mapping[str, Any]) -> Sample:
        name = f"{self._path.name}[{place.line}]{place.half.replace('_', '.')}"
        given = {one.name: self._given(one, place, row, name) for one in self._spec.inputs}
        size = next((len(x) for x in given.values() if x is not None), 0)
        feed = {}
        for one in self._spec.inputs:
            raw = given[one.name]
            if raw is None:
                raw = np.full(size, next(v for end, v in _FILLED.items() if _ends(one, end)))
            where = f"input {one.name!r} of {name}"
            feed[one.name] = feeds.feed(_padded(raw, one, where), one, self._spec.preprocess, where)
        if not place.half:
            label = row.get("label") if not self._is_input("label") else None
            known = None if label is None else feeds.label(label, name)
            return Sample(name, feed, known, place.split)
        truth = PairScore(f"{self._path.name}[{place.line}]", _score(row["score"], name))
        return Sample(name, feed, None, place.split, truth)

    def _given(
        self, one: InputSpec, place: _Place, row: Mapping[str, Any], name: str
    ) -> np.ndarray | None:
        """What a line holds for an input; None where it is to be filled."""
        key = self._spec.keys.get(one.name, one.name) + place.half
        if key in row:
            try:
                raw = np.array(row[key])
            except ValueError:
                raw = np.array(None)
            if raw.dtype.kind not in "biuf" or raw.ndim == 0:
                raise ValueError(f"no list of numbers for key {key!r} of {name}; write one")
            # JSON doesn't say how many bits a number has
            fits = raw.dtype.kind in "iub" if one.dtype.kind in "iu" else True
            return raw.astype(one.dtype) if fits else raw
        if any(_ends(one, end) for end in _FILLED):
            return None
        own = [k.removesuffix(place.half) for k in row if k.endswith(place.half)]
        feeds.find_key(self._spec, one.name, own, name)
        raise ValueError(f"no key {key!r} in {name}; write it in every line")

    def _is_input(self, key: str) -> bool:
        return key in {self._spec.keys.get(one.name, one.name) for one in self._spec.inputs}


def accepts(uri: str) -> bool:
    """Whether uri is a .jsonl file."""
    return Path(uri).suffix.lower() == ".jsonl" and Path(uri).is_file()


def open(uri: str, spec: DatasetSpec) -> Dataset:
    """The lines of a file: `{input: numbers}`, optionally with `label` and `split`.

    A line with `score` holds two samples, `<input>_a` and `<input>_b`, and how alike people find
    them. An attention mask that isn't there is ones, token types are zeros, as long as the tokens.
    Token ids shorter than the input's fixed length are padded with 0, and so is the mask.
    """
    feeds.check(spec)
    return _Jsonl(Path(uri), spec)


def _ends(one: InputSpec, end: str) -> bool:
    return one.name.endswith(end)


def _padded(raw: np.ndarray, one: InputSpec, where: str) -> np.ndarray:
    """Token ids brought to a fixed length."""
    wanted = one.shape[1] if len(one.shape) == 2 and one.dtype.kind in "iu" else None
    if wanted is None or raw.ndim != 1 or len(raw) == wanted:
        return raw
    if len(raw) > wanted:
        raise ValueError(
            f"{len(raw)} tokens at {where}; the input takes {wanted}: cut them, or allow more with"
            f" --shape {one.name}=?,{len(raw)}"
        )
    return np.pad(raw, (0, wanted - len(raw)))


def _score(value: object, name: str) -> float:
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    raise ValueError(f"score {value!r} at {name}; allowed: a number")
