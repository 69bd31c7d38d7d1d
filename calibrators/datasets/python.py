"""Samples from a function of the user's: python:module:function."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from calibrators import feeds
from calibrators.samples import Dataset, DatasetSpec, Sample
from calibrators.truths import Boxes, LabelMap, PairScore, Text, Truth

_FORM = "python:module:function"


class _Python:
    def __init__(self, name: str, call: Callable[[], object], spec: DatasetSpec) -> None:
        self._name, self._call, self._spec = name, call, spec
        self.splits: Sequence[str | None] = [self._split(i, item) for i, item in self._items()]
        if not self.splits:
            raise ValueError(f"0 items from {name}; yield at least one")

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        wanted, last = set(indices), max(indices, default=-1)
        if last < 0:
            return
        count = 0
        for i, item in self._items():
            count = i + 1
            if count > len(self.splits):
                raise self._changed(f"over {len(self.splits)}")
            if i in wanted:
                yield self._sample(i, item)
            # once at the end, look for one item more; before it, spare the user the rest
            if i == last and count < len(self.splits):
                return
        if count < len(self.splits):
            raise self._changed(str(count))

    def _items(self) -> Iterator[tuple[int, Mapping[str, object]]]:
        with self._named():
            items = self._call()
        if not isinstance(items, Iterable):
            raise ValueError(
                f"{type(items).__name__} from {self._name} is not iterable; return a list of"
                " dicts or yield them"
            )
        for i, item in enumerate(self._iterated(items)):
            if not isinstance(item, Mapping):
                raise ValueError(
                    f"{type(item).__name__} from {self._name}, item {i}; expected a dict"
                    f" {{input: array}} with {', '.join(s.name for s in self._spec.inputs)}"
                )
            yield i, item

    def _iterated(self, items: Iterable[object]) -> Iterator[object]:
        with self._named():
            iterator = iter(items)
        while True:
            with self._named():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of the user's own code, whatever they are, as one that names the function."""
        try:
            yield
        except (Exception, SystemExit) as error:
            raise ValueError(f"{_reason(error)}, in {self._name}; mend the function") from error

    def _sample(self, i: int, item: Mapping[str, object]) -> Sample:
        name, spec = f"{self._name}[{i}]", self._spec
        feed = {}
        for one in spec.inputs:
            key = feeds.find_key(spec, one.name, item, name)
            raw = item[key]
            if not isinstance(raw, np.ndarray | np.generic):
                raise ValueError(
                    f"{type(raw).__name__} for key {key!r} of {name}; expected a NumPy array"
                )
            where = f"key {key!r} of {name}"
            feed[one.name] = feeds.feed(np.asarray(raw), one, spec.preprocess, where)
        label = self._label(item, name)
        return Sample(name, feed, label, self.splits[i], self._truth(item, name))

    def _label(self, item: Mapping[str, object], name: str) -> int | None:
        if "labels" in self._spec.keys:
            key = feeds.find_key(self._spec, "labels", item, name)
        elif given := [k for k in ("label", "labels") if k in item and not self._is_input(k)]:
            key = given[0]
        else:
            return None
        return feeds.label(item[key], name)

    def _truth(self, item: Mapping[str, object], name: str) -> Truth | None:
        truth = None if self._is_input("truth") else item.get("truth")
        if truth is None or isinstance(truth, Boxes | LabelMap | Text | PairScore):
            return truth
        raise ValueError(
            f"{type(truth).__name__} for key 'truth' of {name}; allowed: Boxes, LabelMap, Text or"
            " PairScore of calibrators.truths"
        )

    def _split(self, i: int, item: Mapping[str, object]) -> str | None:
        split = None if self._is_input("split") else item.get("split")
        if split is not None and not isinstance(split, str):
            raise ValueError(f"split {split!r} of {self._name}[{i}]; allowed: a string or None")
        return split or None

    def _is_input(self, key: str) -> bool:
        return key in {self._spec.keys.get(i.name, i.name) for i in self._spec.inputs}

    def _changed(self, count: str) -> ValueError:
        return ValueError(
            f"{count} items from {self._name}, {len(self.splits)} when it was opened;"
            " each call must give the same items from the start"
        )


def accepts(uri: str) -> bool:
    """Whether uri starts with python: (the rest is checked when it is opened)."""
    return uri.startswith("python:")


def open(uri: str, spec: DatasetSpec) -> Dataset:
    """The dicts that function() returns or yields: {input: array}, "label", "split" optional.

    "truth", optional: one of calibrators.truths, what tasks other than classes compare with.
    The function runs once here, to count, and again for every reading; each time it must give
    the same items in the same order. Arrays are with or without batch axis, as in dataset npz.
    An exception of the function's own becomes a ValueError that names function and exception.
    """
    feeds.check(spec)
    parts = uri.split(":")
    if len(parts) != 3 or not all(parts) or parts[1].startswith("."):
        raise ValueError(f"{uri!r} has another form than {_FORM}; for instance python:data:samples")
    module, name = parts[1], parts[2]
    function = _function(_import(module), name)
    return _Python(f"{module}:{name}", function, spec)


def _import(module: str) -> ModuleType:
    # stays there: the function may import its neighbours only when it runs
    here = str(Path.cwd())
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except (ImportError, SyntaxError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{reason}, on importing {module!r}; modules are looked for in {here} first"
        ) from error
    # whatever else the user's own code raises while it is imported
    except (Exception, SystemExit) as error:
        raise ValueError(f"{_reason(error)}, on importing {module!r}; mend the module") from error


def _reason(error: BaseException) -> str:
    """`KeyError: 'left'`, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _function(module: ModuleType, name: str) -> Callable[[], object]:
    function: object = getattr(module, name, None)
    if not callable(function):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        hint = f"nearest: {feeds.nearest(name, names)!r}" if names else "it has no function"
        raise ValueError(f"no function {name!r} in {module.__file__}; {hint}")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ValueError(
            f"{name}{inspect.signature(function)} in {module.__file__} takes arguments; it is"
            " called without any"
        ) from error
    return function
