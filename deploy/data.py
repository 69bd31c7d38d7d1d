"""Which samples calibrate and which ones judge, from the recipe's dataset URIs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from calibrators.samples import Dataset, DatasetSpec, InputSpec, Sample, evenly_spaced
from deploy import registry
from deploy.artifacts.model import Model
from deploy.batches import fixed_batch, whole_inputs
from deploy.errors import CalibrationError, RecipeError, nearest
from deploy.noise import FREE_SIZE, free_dimensions, seeded_feeds
from deploy.recipe import Recipe

_SAME = "the calibration samples themselves"
_CALIBRATION = ("calib", "calibration", "train")
_EVALUATION = ("test", "eval", "val", "validation")
_SYNTHETIC = 8


@dataclass(frozen=True)
class SampleSet:
    """Chosen samples of a dataset; iterate it as often as needed. `about` says in words what."""

    uri: str
    dataset: Dataset
    indices: tuple[int, ...]
    about: str

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Sample]:
        try:
            yield from self.dataset.read(self.indices)
        except ValueError as error:
            raise CalibrationError(str(error)) from error

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """Every sample's hash, in order."""
        return tuple(sample.identity() for sample in self)

    def sha256(self) -> str:
        """One hash over every sample's feeds and labels, in order."""
        return hashlib.sha256("\n".join(self.hashes).encode()).hexdigest()

    def check_unchanged(self, sample_sha256: Sequence[str]) -> None:
        """CalibrationError when what was used isn't what was hashed before it."""
        if sorted(line.split()[0] for line in self.hashes) != sorted(sample_sha256):
            raise CalibrationError(
                f"{self.uri}: gives other samples each time it is read, so nothing could be "
                "repeated or proven; seed it"
            )

    def spread(self, count: int) -> SampleSet:
        """At most `count` of them, spread over the whole set."""
        chosen = tuple(evenly_spaced(self.indices, count))
        return self if chosen == self.indices else replace(self, indices=chosen)

    def first(self, count: int) -> SampleSet:
        return SampleSet(self.uri, self.dataset, self.indices[:count], self.about)


@dataclass(frozen=True)
class Data:
    """calibration is None without --data; evaluation is then seeded noise."""

    calibration: SampleSet | None
    evaluation: SampleSet

    @cached_property
    def shared(self) -> int:
        """How many of the samples that judge were calibrated on: the same values, from whatever
        file."""
        if self.calibration is None:
            return 0
        known = {line.split()[0] for line in self.calibration.hashes}
        return sum(line.split()[0] in known for line in self.evaluation.hashes)

    def telling_shared(self) -> Data:
        """The same, `about` saying how many samples of evaluation were calibrated on."""
        judged = self.evaluation
        if not self.shared or _SAME in judged.about:
            return self
        told = replace(judged, about=f"{judged.about}; {self.shared} of them were calibrated on")
        vars(told)["hashes"] = judged.hashes  # reading them all once is enough
        return replace(self, evaluation=told)


def open_data(recipe: Recipe, model: Model) -> Data:
    """The recipe's samples for this model; RecipeError or CalibrationError if they don't fit."""
    spec = DatasetSpec(inputs_of(model), recipe.preprocess(), recipe.data_key)
    _check_keys(recipe, model)
    if recipe.data is None:
        if recipe.eval_data is None:
            return Data(None, _synthetic(model))
        judged = open_dataset(recipe.eval_data, spec)
        return Data(None, _evaluation(recipe.eval_data, judged, recipe))
    dataset = open_dataset(recipe.data, spec)
    calibration = _calibration(recipe.data, dataset, recipe)
    if recipe.eval_data is not None:
        judged = open_dataset(recipe.eval_data, spec)
        return Data(calibration, _evaluation(recipe.eval_data, judged, recipe))
    return Data(calibration, _held_out(recipe.data, dataset, calibration, recipe))


def open_samples(uri: str, recipe: Recipe, model: Model) -> SampleSet:
    """`samples` of a dataset for a stage command, from its calibration split if it has one."""
    spec = DatasetSpec(inputs_of(model), recipe.preprocess(), recipe.data_key)
    _check_keys(recipe, model)
    return _calibration(uri, open_dataset(uri, spec), recipe)


def open_dataset(uri: str, spec: DatasetSpec) -> Dataset:
    """The first dataset kind that accepts the URI; CalibrationError when none does."""
    for name in registry.names("dataset"):
        kind = registry.module("dataset", name)
        if kind.accepts(uri):
            try:
                dataset: Dataset = kind.open(uri, spec)
            except ValueError as error:
                raise CalibrationError(str(error)) from error
            return dataset
    path = Path(uri)
    if not path.exists():
        raise CalibrationError(f"{uri}: no such file or folder{_sibling(path)}; check --data")
    kinds = (
        "a folder of images, a .npz or .npy file, a folder of .npz files, a .json with boxes, a "
        ".jsonl, python:module:function"
    )
    what = "an empty folder" if path.is_dir() and not any(path.iterdir()) else "not a dataset"
    raise CalibrationError(f"{uri}: {what}; give {kinds}")


def inputs_of(model: Model) -> tuple[InputSpec, ...]:
    """What a dataset is told: the model's inputs, the first axis free where it is the batch."""
    whole = whole_inputs(model.inputs)
    return tuple(
        InputSpec(
            spec.name,
            spec.shape if spec.name in whole else (None, *spec.shape[1:]),
            spec.dtype,
            spec.shape[0] if spec.shape else None,
        )
        for spec in model.inputs
    )


def _check_keys(recipe: Recipe, model: Model) -> None:
    names = [*(spec.name for spec in model.inputs), "labels"]
    for key in recipe.data_key:
        if key not in names:
            raise RecipeError(
                f"--data-key {key!r}{nearest(key, names)}: not an input of the model; "
                f"there are: {', '.join(names)}"
            )


def _sibling(path: Path) -> str:
    parent = path.parent if str(path.parent) else Path()
    return nearest(path.name, [p.name for p in parent.iterdir()]) if parent.is_dir() else ""


def _in(dataset: Dataset, names: Sequence[str]) -> list[int]:
    return [i for i, split in enumerate(dataset.splits) if (split or "").lower() in names]


def _calibration(uri: str, dataset: Dataset, recipe: Recipe) -> SampleSet:
    own = _in(dataset, _CALIBRATION)
    free = [i for i, split in enumerate(dataset.splits) if split is None]
    pool = own or free or list(range(len(dataset.splits)))
    chosen = evenly_spaced(pool, recipe.samples)
    where = "its calibration split" if own else "all of it"
    return SampleSet(uri, dataset, tuple(chosen), f"{len(chosen)} of {len(pool)}, from {where}")


def _evaluation(uri: str, dataset: Dataset, recipe: Recipe) -> SampleSet:
    own = _in(dataset, _EVALUATION)
    pool = own or list(range(len(dataset.splits)))
    chosen = evenly_spaced(pool, recipe.eval_samples)
    where = "its test split" if own else "all of it"
    return SampleSet(uri, dataset, tuple(chosen), f"{len(chosen)} of {len(pool)}, from {where}")


def _held_out(uri: str, dataset: Dataset, used: SampleSet, recipe: Recipe) -> SampleSet:
    """The test split, else samples calibration didn't use, else, saying so, the same ones."""
    taken = set(used.indices)
    own = _in(dataset, _EVALUATION)
    if own and taken.isdisjoint(own):
        return _evaluation(uri, dataset, recipe)
    unused = [i for i in range(len(dataset.splits)) if i not in taken]
    pool = unused or list(used.indices)
    chosen = evenly_spaced(pool, recipe.eval_samples)
    about = "samples not used in calibration" if unused else _SAME
    return SampleSet(uri, dataset, tuple(chosen), f"{len(chosen)} of {len(pool)}, {about}")


class _Noise:
    """Seeded values in place of a dataset."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.splits: list[str | None] = [None] * _SYNTHETIC

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        for index in indices:
            feeds = seeded_feeds(self.model.inputs, index)
            size = fixed_batch(self.model.inputs)
            whole = whole_inputs(self.model.inputs)
            single = {n: x if n in whole or size == 1 else x[:1] for n, x in feeds.items()}
            yield Sample(f"seeded noise {index}", single)


def _synthetic(model: Model) -> SampleSet:
    about = "seeded noise, as no data was given: shows equal arithmetic, not task accuracy"
    if free_dimensions(model.inputs):
        about += f"; every free dimension besides the batch is {FREE_SIZE}"
    return SampleSet("", _Noise(model), tuple(range(_SYNTHETIC)), about)
