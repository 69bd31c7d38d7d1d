"""A bundle that came from elsewhere, checked before anything of it is loaded.

Hashes say that nothing changed since the build, not who built it: what would run code of the
bundle's own (plugin libraries) is loaded only when asked for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.artifacts.bundle import Bundle
from deploy.artifacts.untrusted import load_untrusted
from deploy.errors import BundleError
from deploy.files import sha256_of

# far above what a build writes; it is read whole, into a small device's memory
MOST_DESCRIPTION_BYTES = 1 << 20
_ENGINE = ("engine/model.xml", "engine/model.bin", "engine/engine.json", "engine/settings.json")


@dataclass(frozen=True)
class Checked:
    """What of a verified bundle the server needs.

    described: engine.json, the names in the model's own order; settings: settings.json.
    hashes: of every file. libraries: plugin kernels to load, in order.
    """

    folder: Path
    name: str
    digest: str
    precision: str
    described: dict[str, Any]
    settings: dict[str, Any]
    hashes: dict[str, str]
    libraries: tuple[Path, ...]

    def read(self, name: str) -> bytes:
        """A file's content, hashed as it is read: what is loaded is what was verified."""
        data = (self.folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.hashes[name]:
            raise BundleError(f"{self.folder / name}: changed while it was loaded; load it again")
        return data

    @property
    def samples(self) -> Path:
        return self.folder / "parity" / "samples.npz"


def check(folder: Path, *, allow_failed: bool = False, allow_libraries: bool = False) -> Checked:
    """The bundle, every file of it verified; BundleError with the reason when it isn't usable."""
    bundle = load_untrusted(folder)
    status = bundle.manifest["status"]
    if status != "ok" and not allow_failed:
        raise BundleError(
            f"{folder}: status {str(status)[:60]!r}; mend what its report.html says, or give "
            "--allow-failed to serve it all the same"
        )
    settings = _settings(bundle)
    described = _table(folder / "engine" / "engine.json")
    return Checked(
        folder,
        bundle.name,
        str(bundle.manifest.get("manifest_sha256")),
        str(settings.get("precision")),
        described,
        settings,
        {name: str(entry.get("sha256")) for name, entry in bundle.manifest["files"].items()},
        _libraries(folder, described, allow_libraries),
    )


def _settings(bundle: Bundle) -> dict[str, Any]:
    """settings.json of an OpenVINO engine; other engines are refused with what serves them."""
    files = bundle.manifest["files"]
    folder = bundle.folder
    target = str(bundle.manifest["target"])[:60]
    if "engine/settings.json" not in files or "engine/model.xml" not in files:
        raise BundleError(
            f"{folder}: holds no OpenVINO engine (built for {target!r}); serve it on its device "
            "with `deploy package --format triton`, or build with --target cpu"
        )
    missing = [name for name in _ENGINE if name not in files]
    if missing:
        raise BundleError(f"{folder}: {missing[0]} missing; build the bundle again")
    settings = _table(folder / "engine" / "settings.json")
    if settings.get("backend") != "ov" or not isinstance(settings.get("engine"), dict):
        raise BundleError(
            f"{folder}: an engine of backend {str(settings.get('backend'))[:40]!r}; this server "
            "runs OpenVINO's, `deploy package --format triton` serves the others"
        )
    return settings


def _table(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MOST_DESCRIPTION_BYTES:
        raise BundleError(f"{path}: {path.stat().st_size} bytes; don't use this bundle")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: unreadable ({error}); build the bundle again") from None
    if not isinstance(value, dict):
        raise BundleError(f"{path}: not a table; build the bundle again")
    return value


def _libraries(folder: Path, described: dict[str, Any], allowed: bool) -> tuple[Path, ...]:
    rows = described.get("libraries", [])
    found = []
    for row in rows if isinstance(rows, list) else [rows]:
        name = row.get("file") if isinstance(row, dict) else None
        if not isinstance(name, str) or Path(name).name != name:
            raise BundleError(f"{folder}: plugin library {str(name)[:100]!r} leads out of engine/")
        path = folder / "engine" / name
        if not allowed:
            raise BundleError(
                f"{path}: the engine needs this plugin library, and loading it runs its code; "
                "give --allow-libraries if you trust where the bundle comes from"
            )
        if not path.is_file() or sha256_of(path) != row.get("sha256"):
            raise BundleError(f"{path}: not the library the engine was built with; copy it again")
        found.append(path.resolve())
    return tuple(found)
