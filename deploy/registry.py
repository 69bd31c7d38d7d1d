"""Finds extensions by file name, and imports only the one asked for.

The name of a file (or, for a plugin, of a folder) is the extension's public name. Adding one is
adding the file; nothing else lists it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from deploy.errors import RecipeError, nearest

_PACKAGES = {
    "fusion": "deploy.fusions",
    "equalization": "deploy.equalizations",
    "placement": "deploy.placements",
    "correction": "deploy.corrections",
    "backend": "deploy.backends",
    "calibrator": "calibrators.algorithms",
    "dataset": "calibrators.datasets",
}
_HERE = Path(__file__).resolve().parent
# kinds that are data: a TOML file each
_FOLDERS = {"target": _HERE / "targets", "hardware": _HERE / "analysis" / "hardware"}


def names(kind: str) -> list[str]:
    """The public names of that kind, sorted."""
    return sorted(_paths(kind))


def path(kind: str, name: str) -> Path:
    """The file of that extension; RecipeError with the nearest name if there is none."""
    found = _paths(kind)
    if name not in found:
        hint = nearest(name, found)
        raise RecipeError(f"unknown {kind} {name!r}{hint}; there are: {', '.join(sorted(found))}")
    return found[name]


def module(kind: str, name: str) -> ModuleType:
    """The extension's module, imported now."""
    found = path(kind, name)
    if kind == "plugin":
        return _from_file(f"onnx_deploy_plugin_{name}", found)
    return importlib.import_module(f"{_PACKAGES[kind]}.{name}")


def load(kind: str, name: str) -> Any:
    """The public object of a fusion or placement (a function named like the file) or of a
    calibrator (the class, in CamelCase: `moving_average.py` holds `MovingAverage`)."""
    public = "".join(part.capitalize() for part in name.split("_"))
    return getattr(module(kind, name), public if kind == "calibrator" else name)


def plugin_roots() -> list[Path]:
    """Where built-in plugin folders lie: in the wheel, else at the top of the checkout."""
    installed = _HERE / "_plugins"
    return [installed if installed.is_dir() else _HERE.parent / "plugins"]


def _paths(kind: str) -> dict[str, Path]:
    if kind in _FOLDERS:
        return {p.stem: p for p in _FOLDERS[kind].glob("*.toml")}
    if kind == "plugin":
        return _plugins(plugin_roots())
    top, folder = _PACKAGES[kind].split(".")
    # find_spec of a top-level package reads no code, so listing costs no import
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError(f"package {top!r} is not installed; reinstall onnx-deploy")
    files = (Path(spec.submodule_search_locations[0]) / folder).glob("*.py")
    return {p.stem: p for p in files if not p.stem.startswith("_")}


def _plugins(roots: Iterable[Path]) -> dict[str, Path]:
    return {p.parent.name: p for root in roots for p in root.glob("*/op.py")}


def _from_file(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{file}: can't be loaded as Python")
    loaded = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded
