"""What the ONNX parser of a TensorRT release can't read: one TOML file per release and after.

Facts in `operators/<library>-<release>.toml`, each with its source; a release without a file of its
own has what the nearest older one says.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx.defs

_FOLDER = Path(__file__).resolve().parent / "operators"


@dataclass(frozen=True)
class Release:
    """library: as in `Nvidia.library`. version: (major, minor) from which on it holds.
    opsets: oldest and newest it reads. missing: operators of ONNX's own domain."""

    library: str
    version: tuple[int, int]
    opsets: tuple[int, int]
    missing: frozenset[str]

    def lacks(self, operator: str) -> bool:
        """Whether it has no importer for the operator, or the operator is newer than its opsets."""
        if operator in self.missing:
            return True
        if not onnx.defs.has(operator):
            return False
        return _first_opset(operator) > self.opsets[1]

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


@cache
def releases(library: str) -> tuple[Release, ...]:
    """All of a library that there are facts for, the oldest first."""
    found = []
    for file in sorted(_FOLDER.glob(f"{library}-*.toml")):
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        major, minor = (int(part) for part in table["version"].split("."))
        low, high = table["opsets"]
        missing = frozenset(table["missing"])
        found.append(Release(table["library"], (major, minor), (low, high), missing))
    return tuple(sorted(found, key=lambda release: release.version))


def release_for(library: str, version: str) -> Release:
    """The facts that hold for a release such as "8.5.2"; for an older one than all, the oldest."""
    major, minor = (int(part) for part in version.split(".")[:2])
    known = releases(library)
    older = [release for release in known if release.version <= (major, minor)]
    return older[-1] if older else known[0]


def first_with(library: str, operator: str) -> Release | None:
    """The oldest release known to have the operator; None where none has."""
    return next((r for r in releases(library) if not r.lacks(operator)), None)


@cache
def _first_opset(operator: str) -> int:
    schemas = onnx.defs.get_all_schemas_with_history()
    versions = [s.since_version for s in schemas if s.name == operator and s.domain == ""]
    return min(versions, default=0)
