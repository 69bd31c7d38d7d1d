"""Finds extensions by file name, and imports only the one asked for.

The name of a file (or, for a plugin, of a folder) is the extension's public name. Adding one is
adding the file; nothing else lists it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from deploy.errors import RecipeError, nearest, one_line

_PACKAGES = {
    "fusion": "deploy.fusions",
    "equalization": "deploy.equalizations",
    "placement": "deploy.placements",
    "correction": "deploy.corrections",
    "backend": "deploy.backends",
    "format": "deploy.formats",
    "task": "deploy.tasks",
    "decoder": "deploy.decoders",
    "rule": "deploy.doctor.rules",
    "calibrator": "calibrators.algorithms",
    "dataset": "calibrators.datasets",
}
_HERE = Path(__file__).resolve().parent
# kinds that are data: a TOML file each
_FOLDERS = {"target": _HERE / "targets", "hardware": _HERE / "analysis" / "hardware"}
# kinds whose files hold a class
_CLASSES = ("calibrator", "task", "decoder")
# folders with plugins of the user's, and files with fusions, by name
_added: list[Path] = []
_fusions: dict[str, Path] = {}
# what a folder holds besides op.py when it is meant to be a plugin
_KERNELS = ("*.cu", "*.cuh", "*.cpp")
_PLUGIN_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*")


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
    if kind == "fusion" and name in _fusions:
        return _from_file(f"onnx_deploy_fusion_{name}", found)
    return importlib.import_module(f"{_PACKAGES[kind]}.{name}")


def load(kind: str, name: str) -> Any:
    """The public object of a fusion or placement (a function named like the file), or of another
    kind a class, in CamelCase: `moving_average.py` holds `MovingAverage`."""
    public = "".join(part.capitalize() for part in name.split("_"))
    return getattr(module(kind, name), public if kind in _CLASSES else name)


def plugin_roots() -> list[Path]:
    """Where plugin folders lie: the built-in ones, in the wheel or else at the top of the
    checkout, then those that `add_plugin_path` was given."""
    installed = _HERE / "_plugins"
    return [installed if installed.is_dir() else _HERE.parent / "plugins", *_added]


def add_plugin_path(folder: Path) -> None:
    """Take the plugins of a folder of the user's too, until this process ends.

    folder: one plugin, or a folder of plugins. RecipeError when there is none, or when one has a
    name that another plugin has.
    """
    if not folder.is_dir():
        raise RecipeError(f"{folder}: no such folder; --plugin-path takes a folder with plugins")
    root = folder.resolve()
    if root in _added:
        return
    found = _plugins([root])
    if not found:
        raise RecipeError(f"{folder}: no plugin there; a plugin is a folder with an op.py")
    _check_folders(root, found)
    _added.append(root)


def add_fusion_path(file: Path) -> None:
    """Take a fusion of the user's too, until this process ends: a file with a function of its name.

    It runs where a target names it. RecipeError when it isn't one, or has the name of another.
    """
    name, found = file.stem, file.resolve()
    if _fusions.get(name) == found:
        return
    if file.suffix != ".py" or not file.is_file():
        raise RecipeError(f"{file}: no such Python file; --fusion-path takes <name>.py")
    known = _paths("fusion")
    if name in known:
        raise RecipeError(
            f"{file}: there is a fusion {name!r} already, {known[name]}; give yours another name"
        )
    if not callable(getattr(_from_file(f"onnx_deploy_fusion_{name}", found), name, None)):
        raise RecipeError(f"{file}: has no function {name}(node); name the two alike")
    _fusions[name] = found


def added_fusions() -> list[Path]:
    """The files that `add_fusion_path` was given."""
    return sorted(_fusions.values())


def added_fusion(name: str) -> Path | None:
    """The file of a fusion that `add_fusion_path` was given; None for one of ours."""
    return _fusions.get(name)


def _paths(kind: str) -> dict[str, Path]:
    if kind in _FOLDERS:
        return {p.stem: p for p in _FOLDERS[kind].glob("*.toml")}
    if kind == "plugin":
        return _plugins(plugin_roots())
    top, *folders = _PACKAGES[kind].split(".")
    # find_spec of a top-level package reads no code, so listing costs no import
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError(f"package {top!r} is not installed; reinstall onnx-deploy")
    files = Path(spec.submodule_search_locations[0], *folders).glob("*.py")
    found = {p.stem: p for p in files if not p.stem.startswith("_")}
    return {**found, **_fusions} if kind == "fusion" else found


def _plugins(roots: Iterable[Path]) -> dict[str, Path]:
    """Every op.py by its folder's name; a root is one plugin or a folder of plugins."""
    found = {}
    for root in roots:
        own = root / "op.py"
        found.update(
            {own.parent.name: own}
            if own.is_file()
            else {p.parent.name: p for p in root.glob("*/op.py")}
        )
    return found


def _check_folders(root: Path, found: dict[str, Path]) -> None:
    known = _plugins(plugin_roots())
    for name, op in sorted(found.items()):
        if not _PLUGIN_NAME.fullmatch(name):
            raise RecipeError(
                f"{op.parent}: {name!r} can't be an operator's name; name the folder like "
                "channel_shuffle, which is the operator ChannelShuffle"
            )
        if name in known:
            raise RecipeError(
                f"{op.parent}: there is a plugin {name!r} already, {known[name].parent}; give "
                "yours another name"
            )
    if root.name in found:
        return
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name not in found):
        kernels = sorted(p.name for pattern in _KERNELS for p in folder.glob(pattern))
        if kernels:
            raise RecipeError(
                f"{folder}: has {kernels[0]} but no op.py, so nothing says what it computes; write "
                "one as plugins/README.md says"
            )


def _from_file(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{file}: can't be loaded as Python")
    loaded = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    sys.modules[name] = loaded
    try:
        spec.loader.exec_module(loaded)
    # whatever the file's own code raises is the file's error
    except Exception as error:
        del sys.modules[name]
        raise RecipeError(
            f"{file}:{_line_of(error, file)}: {type(error).__name__}: {one_line(error)}; its "
            "Python has to import"
        ) from None
    return loaded


def _line_of(error: Exception, file: Path) -> int:
    """The line of a file that raised, or that can't be parsed."""
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno or 0 for frame in frames if frame.filename == str(file)]
    return lines[-1] if lines else 0
