"""The registry: what a file's name makes of it, and what a wrong name says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy import registry
from deploy.errors import RecipeError

HERE = Path(registry.__file__).parent
KINDS = {
    "fusion": HERE / "fusions",
    "placement": HERE / "placements",
    "backend": HERE / "backends",
    "calibrator": HERE.parent / "calibrators" / "algorithms",
    "dataset": HERE.parent / "calibrators" / "datasets",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_an_extension(kind: str) -> None:
    files = sorted(p.stem for p in KINDS[kind].glob("*.py") if not p.stem.startswith("_"))
    assert registry.names(kind) == files
    assert files


def test_every_toml_is_a_target() -> None:
    assert registry.names("target") == sorted(p.stem for p in (HERE / "targets").glob("*.toml"))


def test_every_toml_of_hardware_is_a_row() -> None:
    rows = (HERE / "analysis" / "hardware").glob("*.toml")
    assert registry.names("hardware") == sorted(p.stem for p in rows)
    assert "jetson-nano" in registry.names("hardware")


@pytest.mark.parametrize("kind", [*KINDS, "target", "hardware"])
def test_a_path_is_the_file_itself(kind: str) -> None:
    for name in registry.names(kind):
        path = registry.path(kind, name)
        assert path.is_file()
        assert path.stem == name


@pytest.mark.parametrize(
    ("kind", "wrong", "hint"),
    [
        ("fusion", "fold_afine", "fold_affine"),
        ("calibrator", "min_max", "minmax"),
        ("dataset", "image", "images"),
        ("target", "intel_avx2", "intel-avx2"),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_all(kind: str, wrong: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        registry.path(kind, wrong)
    everything = ", ".join(registry.names(kind))
    assert str(caught.value) == (
        f"unknown {kind} {wrong!r} (did you mean {hint!r}?); there are: {everything}"
    )


def test_a_name_like_nothing_gets_no_hint() -> None:
    with pytest.raises(RecipeError, match=r"^unknown backend 'zzz'; there are: "):
        registry.module("backend", "zzz")


@pytest.mark.parametrize("private", ["__init__", "_hidden", "../errors"])
def test_only_extensions_can_be_asked_for(private: str) -> None:
    with pytest.raises(RecipeError, match="unknown fusion"):
        registry.load("fusion", private)


@pytest.mark.parametrize("kind", ["fusion", "placement"])
def test_a_function_is_named_like_its_file(kind: str) -> None:
    for name in registry.names(kind):
        assert registry.load(kind, name).__name__ == name


def test_a_calibrator_is_a_class_in_camel_case() -> None:
    for name in registry.names("calibrator"):
        made = registry.load("calibrator", name)
        assert isinstance(made, type)
        assert made.__name__.lower() == name.replace("_", "")


def test_listing_imports_no_extension() -> None:
    code = (
        "import sys; from deploy import registry; "
        f"[registry.names(kind) for kind in {[*KINDS, 'target', 'hardware', 'plugin']!r}]; "
        "loaded = [m for m in sys.modules if m.startswith(('deploy.fusions.', 'deploy.backends.', "
        "'deploy.placements.', 'calibrators.algorithms.', 'calibrators.datasets.'))]; "
        "print(loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


PLUGIN = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass(frozen=True)
class Attributes:
    axis: int = 1

DOUBLE = Attributes(axis=2)
"""


def plugin(root: Path, name: str, source: str = PLUGIN) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "op.py").write_text(source, encoding="utf-8")


def test_a_plugin_is_a_folder_with_an_op(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(tmp_path, "my_norm")
    (tmp_path / "notes").mkdir()
    monkeypatch.setattr(registry, "plugin_roots", lambda: [tmp_path])
    monkeypatch.delitem(sys.modules, "onnx_deploy_plugin_my_norm", raising=False)
    assert registry.names("plugin") == ["my_norm"]
    assert registry.path("plugin", "my_norm") == tmp_path / "my_norm" / "op.py"
    # dataclasses with postponed annotations need the module to be known by name
    assert registry.module("plugin", "my_norm").DOUBLE.axis == 2
    del sys.modules["onnx_deploy_plugin_my_norm"]


def test_plugin_roots_exist() -> None:
    assert all(root.is_dir() for root in registry.plugin_roots())
