"""What every dataset promises; finds the datasets by their files."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import calibrators.datasets
from calibrators.samples import DatasetSpec, evenly_spaced

NAMES = sorted(
    path.stem
    for path in Path(next(iter(calibrators.datasets.__path__))).glob("*.py")
    if path.stem != "__init__"
)
COUNT = 5


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f"calibrators.datasets.{name}")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_has_two_public_functions_and_says_what_it_is(name: str) -> None:
    module = module_of(name)
    public = [
        n
        for n, f in inspect.getmembers(module, inspect.isroutine)
        if f.__module__ == module.__name__ and not n.startswith("_")
    ]
    assert public == ["accepts", "open"] and module.__doc__


def test_accepts_its_own_uri_alone(name: str, make: Callable[[str], str]) -> None:
    uri = make(name)
    assert [other for other in NAMES if module_of(other).accepts(uri)] == [name]


@pytest.mark.parametrize("uri", ["missing", "missing.npz", "missing.npy", "missing/"])
def test_accepts_no_missing_path(name: str, uri: str, make: Callable[[str], str]) -> None:
    make(name)
    assert not module_of(name).accepts(uri)


def test_feeds_have_the_models_names_dtype_and_a_batch_axis(
    name: str, make: Callable[[str], str], spec: DatasetSpec
) -> None:
    data = module_of(name).open(make(name), spec)
    assert len(data.splits) == COUNT
    samples = list(data.read(range(COUNT)))
    assert len(samples) == COUNT
    for sample, split in zip(samples, data.splits, strict=True):
        assert {k: (v.shape, v.dtype.name) for k, v in sample.feeds.items()} == {
            "x": ((1, 3, 4, 6), "float32")
        }
        assert sample.feeds["x"].flags.writeable and sample.feeds["x"].flags.c_contiguous
        assert sample.split == split and sample.label is None and sample.name
    assert len({sample.sha256() for sample in samples}) == COUNT
    assert len({sample.name for sample in samples}) == COUNT


def test_reads_the_same_again_and_when_opened_again(
    name: str, make: Callable[[str], str], spec: DatasetSpec
) -> None:
    uri = make(name)
    first, second = module_of(name).open(uri, spec), module_of(name).open(uri, spec)
    runs = [
        [(sample.name, sample.sha256()) for sample in data.read(range(COUNT))]
        for data in (first, first, second)
    ]
    assert runs[0] == runs[1] == runs[2]


def test_reads_just_the_indices_asked_for(
    name: str, make: Callable[[str], str], spec: DatasetSpec
) -> None:
    data = module_of(name).open(make(name), spec)
    every = [sample.sha256() for sample in data.read(range(COUNT))]
    some = evenly_spaced(range(COUNT), 3)
    assert some == [0, 1, 3]
    assert [sample.sha256() for sample in data.read(some)] == [every[i] for i in some]
    assert [sample.sha256() for sample in data.read([4])] == [every[4]]
    assert list(data.read([])) == []


def test_two_readings_may_run_at_once(
    name: str, make: Callable[[str], str], spec: DatasetSpec
) -> None:
    data = module_of(name).open(make(name), spec)
    pairs = list(zip(data.read(range(COUNT)), data.read(range(COUNT)), strict=True))
    assert len(pairs) == COUNT and all(a.sha256() == b.sha256() for a, b in pairs)
