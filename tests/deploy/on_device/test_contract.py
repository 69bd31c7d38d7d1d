"""What deploy uses of TensorRT is there in every version it supports, and nothing else is used.

The whole code runs on doubles that have exactly the names of a version (tests/doubles), which note
what was used; with TENSORRT_BINDINGS (see tests/fetch_tensorrt_bindings.py) that is compared with
the real bindings too.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_facts
import write_tensorrt_facts
from build_ways import (
    ROOT,
    SOURCES,
    VERSIONS,
    Used,
    chains,
    go,
    here_for,
    reference_of,
    refusals,
    used,
    ways,
)
from doubles.arguments import overloads
from real_tensorrt import named, real_or_skip, sites

from deploy.nvidia.finish_script import finish_script

SUPPORTED = ("8.5.2", "8.6.1", "10.3.0", "10.16.1", "11.4.0")
TREES = {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
# names that the code has and no way below uses: why
UNUSED = {
    "TensorLocation.HOST": "compared with; an engine of the double has no tensor of sizes",
}


def each_way() -> Iterator[Any]:
    for version in VERSIONS:
        for name in ways(version):
            yield pytest.param(version, name, id=f"{version} {name}")


@pytest.mark.parametrize(("version", "name"), [*each_way()])
def test_a_version_s_path_uses_what_it_has(version: str, name: str, tmp_path: Path) -> None:
    way = ways(version)[name]
    with here_for(version) as here:
        built, y = go(here, way, tmp_path)
    assert built.problems == []
    expected = reference_of(name)
    np.testing.assert_allclose(y, expected, atol=way.tolerance * np.abs(expected).max(), rtol=0)
    exact = name in ("fp32", "tf32", "strong", "with a plugin") or name.startswith("for later")
    assert exact or not np.array_equal(y, expected)


@pytest.mark.parametrize("version", VERSIONS)
def test_refusals_are_told_in_tensorrt_s_words(version: str, tmp_path: Path) -> None:
    with here_for(version) as here:
        said = "\n".join(refusals(here, tmp_path))
    assert "zero" in said and "no profile" in said and "is of another GPU" in said
    assert "magicTag does not match" in said and "isn't between" in said
    cached = "int8 by cache" in ways(version)
    assert ("the calibration cache was ignored" in said) == cached
    assert ("tensor 'x' of an INT8 layer has no scale" in said) == cached


@pytest.mark.parametrize("version", SUPPORTED)
def test_all_that_was_used_is_in_the_table(version: str) -> None:
    for name in used(version).touched:
        plain = re.sub(r"[=(].*$", "", name)
        fact = tensorrt_facts.what(version, plain)
        assert fact is not None, f"{plain} isn't in {version}"
        assert not name.endswith("=") or fact == "rw", f"{plain} can't be set in {version}"


def test_int8_has_the_path_each_version_needs() -> None:
    for version in SUPPORTED:
        by_cache = "IBuilderConfig.int8_calibrator=" in used(version).touched
        by_range = "ITensor.set_dynamic_range" in used(version).touched
        flags = "BuilderFlag.INT8" in used(version).touched
        assert by_cache == by_range == flags == (version != "11.4.0")
        strong = "NetworkDefinitionCreationFlag.STRONGLY_TYPED" in used(version).touched
        assert strong == (not version.startswith("8."))


@pytest.mark.parametrize("name", TREES)
def test_names_are_of_some_version(name: str) -> None:
    own = {"__name__", "__version__"}  # of any module
    unknown = [c for c in chains(TREES[name]) - own if not _anywhere(c)]
    assert not unknown, f"{name} names {unknown}, which no TensorRT has"


def test_a_name_of_no_version_is_found() -> None:
    tree = ast.parse("def f(trt):\n kinds = trt.BuilderFlag\n return kinds.FP17, trt.Bilder")
    assert [c for c in sorted(chains(tree)) if not _anywhere(c)] == ["Bilder", "BuilderFlag.FP17"]


def test_every_name_in_the_code_is_used_by_some_way() -> None:
    """So that what the ways use is all that the code can use."""
    touched = set().union(*(used(version).touched for version in VERSIONS))
    everything = {re.sub(r"[=(].*$", "", name) for name in touched}
    members = {name.rpartition(".")[2] for name in everything}
    reached = {c for tree in TREES.values() for c in chains(tree)} - {"__name__", "__version__"}
    reached = {c for c in reached if not c.endswith((".*", ".__init__"))}
    bases = {"IInt8EntropyCalibrator2", "ILogger"}
    unused = {c for c in reached - everything if c not in bases}
    unused |= {name for name in _members_named() if name not in members}
    assert unused <= set(UNUSED), f"no way uses {sorted(unused - set(UNUSED))}"
    assert set(UNUSED) <= reached, f"the code has no {sorted(set(UNUSED) - reached)} any more"


def _anywhere(chain: str) -> bool:
    plain = chain.removesuffix(".*")
    return any(tensorrt_facts.has(version, plain) for version in tensorrt_facts.versions())


def _members_named() -> set[str]:
    """Attributes in the code that only a class of TensorRT can mean: they stand in no class,
    function or import of ours, and in none of Python's usual types."""
    known = {n.rpartition(".")[2] for v in SUPPORTED for n in tensorrt_facts.names(v) if "." in n}
    usual = {n for kind in (str, bytes, list, dict, set, np.ndarray, Path) for n in dir(kind)}
    ours = {
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    ours |= {
        node.target.id
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    named = {
        node.attr
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }
    return {n for n in named & known if n not in usual | ours and not n.startswith("_")}


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_stitched_script_builds_and_runs(version: str, tmp_path: Path) -> None:
    script = types.ModuleType("finish")
    text = finish_script()
    sys.modules["finish"] = script  # its dataclasses look their module up
    try:
        exec(compile(text, "finish.py", "exec"), script.__dict__)
    finally:
        del sys.modules["finish"]
    for name in ("fp32", "int8 by Q/DQ", "with a plugin", "int8 by cache"):
        if name not in ways(version):
            continue
        with here_for(version) as here:
            _, y = go(here, ways(version)[name], tmp_path, script.build_plan, script.Runner)
        assert np.abs(y - reference_of(name)).max() < 0.05 * np.abs(y).max()
        touched = {n for n in here.trt._touched if not n.startswith("ComputeCapability")}
        assert touched <= used(version).touched
    ours = set().union(*(chains(tree) for name, tree in TREES.items() if name != "rtx.py"))
    assert chains(ast.parse(text)) <= ours


@pytest.mark.parametrize("site", sites() or [None], ids=named)
def test_all_that_was_used_is_in_the_real_bindings(site: Path | None) -> None:
    version, surface = real_or_skip(site)
    if version not in VERSIONS:
        pytest.skip(f"nothing is built with {version} here")
    assert _not_in(surface, used(version)) == []


def _not_in(surface: dict[str, Any], found: Used) -> list[str]:
    """What was used and real bindings don't have: names, keywords, properties to be set."""
    names = dict(write_tensorrt_facts.facts(surface))
    bases = {name: about["bases"] for name, about in surface["classes"].items()}
    missing = []
    for name in sorted(found.touched):
        plain, _, keyword = name.rstrip("=)").partition("(")
        owner, _, member = plain.rpartition(".")
        facts = [
            names.get(f"{o}.{member}" if o else member) for o in (owner, *bases.get(owner, []))
        ]
        fact = next((f for f in facts if f is not None), None)
        if fact is None or (name.endswith("=") and fact != "rw"):
            missing.append(name)
        if keyword and keyword not in {p.name for call in overloads(str(fact)) for p in call}:
            missing.append(name)
    return missing


def test_every_version_of_a_target_is_built_with_here() -> None:
    wanted = {}
    for path in sorted((ROOT / "deploy" / "targets").glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        nvidia = table.get("engine", {}).get("nvidia", {})
        rtx = "rtx-" if nvidia.get("library") == "tensorrt_rtx" else ""
        wanted.update({rtx + version: path.name for version in nvidia.get("versions", ())})
    assert set(wanted) <= set(VERSIONS), wanted


def test_names_that_real_bindings_lack_are_found() -> None:
    surface = {
        "enums": {"BuilderFlag": {"TF32": 0}},
        "classes": {"Builder": {"bases": [], "members": {"logger": "ro", "create_network": "()"}}},
        "functions": {},
        "values": {},
    }
    names = {"Builder.logger=", "Builder.create_network(flags)", "Builder.logger", "BuilderFlag.X"}
    found = _not_in(surface, Used(frozenset(names), frozenset()))
    assert found == ["Builder.create_network(flags)", "Builder.logger=", "BuilderFlag.X"]
