"""The doubles have the names, values and parameters of the real bindings, and no others."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorrt_facts
import write_tensorrt_facts
from real_tensorrt import named, real_or_skip, sites

from doubles import make
from doubles.arguments import overloads
from doubles.tensorrt_double import implementations

# parameters that the double doesn't take
NOT_TAKEN = {"Runtime.deserialize_cuda_engine": {"stream_reader", "stream_reader_v2"}}
SPECIAL = ("__init__", "__len__", "__getitem__", "__iter__", "__call__", "__enter__", "__exit__")


@pytest.mark.parametrize("version", tensorrt_facts.versions())
def test_a_double_has_exactly_the_names_of_its_version(version: str) -> None:
    assert dict(_names_of(make(version))) == {
        name: _plain(fact) for name, fact in tensorrt_facts.names(version).items()
    }


def _plain(fact: str | int) -> str | int:
    """A fact as far as a double's class shows it: whether it's a call, not which."""
    if str(fact).startswith(("(", "none")):
        return "call"
    return "class" if str(fact).startswith("class") else fact


def _names_of(module: Any) -> Iterator[tuple[str, str | int]]:
    for name, thing in vars(module).items():
        if name.startswith("_"):
            continue
        if isinstance(thing, type):
            yield from _of_class(name, thing)
        elif hasattr(type(thing), "__members__"):
            yield name, str(thing)
        else:
            yield name, "call"


def _of_class(name: str, kind: type) -> Iterator[tuple[str, str | int]]:
    members = type.__getattribute__(kind, "__dict__")
    if "__members__" in members:
        yield name, "enum"
        yield from ((f"{name}.{n}", int(m)) for n, m in members["__members__"].items())
        return
    yield name, "class"
    written = {"_fact", "_own", "_state", "_version", "__module__", "__doc__", "__qualname__"}
    for member, thing in members.items():
        special = member.startswith("__") and member not in SPECIAL
        private = member.startswith("_") and not member.startswith("__")
        if special or private or member in written:
            continue
        if isinstance(thing, type):
            yield from _of_class(f"{name}.{member}", thing)
        elif isinstance(thing, property):
            yield f"{name}.{member}", "ro" if thing.fset is None else "rw"
        else:
            yield f"{name}.{member}", "call" if callable(thing) else "value"


def test_the_double_invents_nothing() -> None:
    for owner, source in implementations().items():
        for member in vars(source):
            key = member if owner == "functions" else f"{owner}.{member}"
            invented = not member.startswith("_") and not tensorrt_facts.anywhere(key)
            assert not invented, f"the double has {key}, which no TensorRT has"


@pytest.mark.parametrize("version", tensorrt_facts.versions())
def test_the_double_takes_the_real_parameters(version: str) -> None:
    for owner, source in implementations().items():
        for member, function in inspect.getmembers(source, inspect.isfunction):
            key = member if owner == "functions" else f"{owner}.{member}"
            fact = str(tensorrt_facts.names(version).get(key, ""))
            if member.startswith("_") or not fact.startswith("("):
                continue
            taken = set(inspect.signature(function).parameters)
            wanted = {p.name for call in overloads(fact) for p in call}
            assert wanted - taken <= NOT_TAKEN.get(key, set()), f"{key}{fact}"


@pytest.mark.parametrize("site", sites() or [None], ids=named)
def test_the_table_is_right(site: Path | None) -> None:
    version, surface = real_or_skip(site)
    assert dict(write_tensorrt_facts.facts(surface)) == tensorrt_facts.names(version)


@pytest.mark.parametrize("site", sites() or [None], ids=named)
def test_a_double_has_the_names_of_the_real_bindings(site: Path | None) -> None:
    version, surface = real_or_skip(site)
    names = {name: _plain(fact) for name, fact in write_tensorrt_facts.facts(surface)}
    assert dict(_names_of(make(version))) == names
