"""The work folder: finished stages by the hash of everything they were made from.

A stage's folder appears by rename when its product is complete, with the hash of every file in it;
an interrupted build finds the finished ones and goes on from there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from deploy import registry
from deploy.errors import RecipeError
from deploy.files import folder_aside, json_bytes, sha256_of, write_aside

_RECORD = "stage.json"
# the lock is also the sign that a folder is a work folder
_LOCK = "onnx-deploy.lock"
# what decides a result: Python, targets, and the kernels of plugins
_CODE = (".py", ".toml", ".cpp", ".h", ".cu", ".cuh")
_OURS = re.compile(r"[a-z]+-[0-9a-f]{16}|\..+\.(partial|old)")


class Work:
    """A context manager over one work folder, held by one build at a time.

    fresh: forget what earlier builds finished.
    """

    def __init__(self, root: Path, tools: Mapping[str, str], *, fresh: bool = False) -> None:
        self.root = root
        self.tools = dict(tools)
        self.fresh = fresh
        self.used: set[str] = set()
        self._lock: IO[str] | None = None

    def __enter__(self) -> Work:
        self._check_ours()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / _LOCK).open("a+")
        except OSError as error:
            raise RecipeError(f"{self.root}: {error.strerror}; give another -o") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RecipeError(
                f"{self.root}: another build is working here; wait for it or give another -o"
            ) from None
        if self.fresh:
            self._clear(keep=set())
        return self

    def _check_ours(self) -> None:
        """Refuse a folder of the user's that happens to have the work folder's name."""
        if self.root.is_dir() and not (self.root / _LOCK).is_file():
            other = min((p.name for p in self.root.iterdir()), default=None)
            if other is not None:
                raise RecipeError(
                    f"{self.root}: holds {other!r}, which no build made; the stages of this build "
                    "would go there, give another -o"
                )

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def stage(
        self, name: str, key: Mapping[str, Any], make: Callable[[Path], None]
    ) -> tuple[Path, bool]:
        """The folder of a finished stage, and whether it was there already.

        key: everything the product depends on, as JSON; `make` fills an empty folder.
        """
        content = {"stage": name, "key": key, "tools": self.tools}
        folder = self.root / f"{name}-{hashlib.sha256(json_bytes(content)).hexdigest()[:16]}"
        self.used.add(folder.name)
        if _is_whole(folder):
            return folder, True
        with folder_aside(folder) as aside:
            make(aside)
            write_aside(aside / _RECORD, json_bytes({**content, "files": _hashes(aside)}))
        return folder, False

    def tidy(self) -> None:
        """Remove the stages this build didn't use: earlier recipes of the same output folder."""
        self._clear(keep=self.used)

    def _clear(self, keep: set[str]) -> None:
        for folder in self.root.iterdir():
            if folder.is_dir() and folder.name not in keep and _OURS.fullmatch(folder.name):
                shutil.rmtree(folder, ignore_errors=True)


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in files}


def _is_whole(folder: Path) -> bool:
    """Whether every file of a finished stage is there, unchanged."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        wanted: dict[str, str] = record["files"]
        return all(sha256_of(folder / name) == digest for name, digest in wanted.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def tool_versions() -> dict[str, str]:
    """Versions of everything that decides the result, this project's own code by its hash."""
    from importlib.metadata import PackageNotFoundError, version

    names = ("onnx-deploy", "onnx", "onnx-graphsurgeon", "onnxruntime", "onnxslim", "numpy")
    found = {}
    for name in (*names, "openvino", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": ".".join(map(str, sys.version_info[:3])), "code": _code_sha256()}


def _code_sha256() -> str:
    import calibrators

    digest = hashlib.sha256()
    packages = (Path(__file__).parent, Path(calibrators.__file__).parent)
    for package in (*packages, *registry.plugin_roots()):
        for file in sorted(package.rglob("*")):
            if file.suffix in _CODE:
                digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    for file in registry.added_fusions():
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
