"""The server needs neither onnx nor anything of the pipeline, and installs without them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OURS = {
    "deploy",
    "deploy.errors",
    "deploy.files",
    "deploy.artifacts",
    "deploy.artifacts.bundle",
    "deploy.artifacts.stored_arrays",
    "deploy.artifacts.untrusted",
}
HEAVY = ("onnx", "onnxruntime", "onnxslim", "onnx_graphsurgeon", "pydantic", "calibrators")
LOADED = """
import sys, pkgutil, importlib, deploy.serving
for found in pkgutil.iter_modules(deploy.serving.__path__, "deploy.serving."):
    importlib.import_module(found.name)
print("\\n".join(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Every module that all of deploy.serving brings along."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_it_imports_no_onnx(loaded: set[str]) -> None:
    assert {name for name in HEAVY if name in loaded} == set()
    # OpenVINO comes when the bundle is known to be good
    assert "openvino" not in loaded


def test_of_ours_it_imports_few_files(loaded: set[str]) -> None:
    ours = {name for name in loaded if name.split(".")[0] == "deploy"}
    assert {name for name in ours if not name.startswith("deploy.serving")} == OURS


def test_its_distribution_holds_exactly_those() -> None:
    project = tomllib.loads((ROOT / "packaging" / "serve" / "pyproject.toml").read_text())
    held = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    paths = {(ROOT / "packaging" / "serve" / path).resolve() for path in held}
    wanted = {ROOT / "deploy" / "serving"}
    for name in OURS:
        path = ROOT.joinpath(*name.split("."))
        wanted.add(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    assert paths == wanted
    assert {str(ROOT / place) for place in held.values()} == {str(path) for path in paths}


def test_its_version_and_requirements_are_the_projects() -> None:
    own = tomllib.loads((ROOT / "packaging" / "serve" / "pyproject.toml").read_text())["project"]
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert own["version"] == whole["version"]
    assert own["requires-python"] == whole["requires-python"]
    extra = set(whole["optional-dependencies"]["serve"])
    assert set(own["dependencies"]) - extra <= set(whole["dependencies"])
    assert extra <= set(own["dependencies"])
