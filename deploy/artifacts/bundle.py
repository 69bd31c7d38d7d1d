"""The bundle folder: the engine, what it was made from, the proof, and a manifest over it all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.errors import BundleError
from deploy.files import json_bytes, sha256_of, write_aside

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_REQUIRED = ("status", "model", "target", "precision", "files", "tools", "command", "results")


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; `manifest` is its parsed, schema-checked manifest."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read the manifest; BundleError when there is none, or it isn't one we know."""
        path = folder / MANIFEST
        if not path.is_file():
            raise BundleError(
                f"{folder}: no {MANIFEST}, so not a bundle; give the folder of a build"
            )
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        except (OSError, ValueError) as error:
            raise BundleError(f"{path}: unreadable ({error}); build the bundle again") from None
        if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
            version = manifest.get("schema_version") if isinstance(manifest, dict) else None
            raise BundleError(
                f"{path}: schema version {version!r}, this onnx-deploy reads {SCHEMA_VERSION}; use "
                "the version that built it, or build again"
            )
        missing = [key for key in _REQUIRED if key not in manifest]
        if missing:
            raise BundleError(f"{path}: {', '.join(missing)} missing; build the bundle again")
        tables = [manifest["model"], manifest["files"]]
        if not all(isinstance(t, dict) for t in tables) or not all(
            isinstance(entry, dict) for entry in manifest["files"].values()
        ):
            raise BundleError(f"{path}: model or files is not a table; build the bundle again")
        return cls(folder, manifest)

    @property
    def name(self) -> str:
        return str(self.manifest["model"]["name"])

    def problems(self) -> list[str]:
        """What differs from the manifest, one line per file; empty when nothing does."""
        found = []
        if self.manifest.get("manifest_sha256") != _self_hash(self.manifest):
            found.append(f"{MANIFEST}: changed (its own hash doesn't match)")
        listed = self.manifest["files"]
        for name, entry in sorted(listed.items()):
            problem = self._problem(name, str(entry.get("sha256")))
            if problem:
                found.append(f"{name}: {problem}")
        return [*found, *(f"{name}: added, the manifest doesn't know it" for name in self.added())]

    def added(self) -> list[str]:
        """Files and links in the folder that the manifest doesn't list."""
        paths = {p.relative_to(self.folder).as_posix(): p for p in self.folder.rglob("*")}
        return sorted(
            name
            for name, path in paths.items()
            if name not in self.manifest["files"]
            and name != MANIFEST
            and (path.is_symlink() or not path.is_dir())
        )

    def _problem(self, name: str, wanted: str) -> str | None:
        pure = PurePosixPath(name)
        path = self.folder / pure
        if pure.is_absolute() or ".." in pure.parts or path.is_symlink():
            return "leads out of the bundle; don't use this bundle"
        if not path.is_file():
            return "missing"
        if not path.resolve().is_relative_to(self.folder.resolve()):
            return "leads out of the bundle; don't use this bundle"
        got = sha256_of(path)
        return None if got == wanted else f"changed (sha256 {got[:12]}, was {wanted[:12]})"


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Hash every file of the folder and write the manifest, which hashes itself too."""
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {"schema_version": SCHEMA_VERSION, **content, "files": files}
    manifest["manifest_sha256"] = _self_hash(manifest)
    write_aside(folder / MANIFEST, json_bytes(manifest))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _self_hash(manifest: dict[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json_bytes(content)).hexdigest()
