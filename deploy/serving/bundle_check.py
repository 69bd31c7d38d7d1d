"""A bundle that came from elsewhere, checked before anything of it is loaded.

Hashes say that nothing changed since the build, not who built it: what would run code of the
bundle's own (plugin libraries) is loaded only when asked for.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.artifacts.bundle import MANIFEST, Bundle
from deploy.errors import BundleError
from deploy.files import sha256_of

# far above what a build writes; what is read whole has to fit into a small device's memory
MOST_MANIFEST_BYTES = 16 << 20
MOST_DESCRIPTION_BYTES = 1 << 20
MOST_BYTES = 64 << 30
MOST_FILES = 10_000
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
    _check_sizes(folder)
    bundle = Bundle.load(folder)
    _check_listing(bundle)
    problems = bundle.problems()
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise BundleError(
            f"{folder}: {problems[0]}{more}; not served, copy the bundle again or build it again"
        )
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


def _check_sizes(folder: Path) -> None:
    manifest = folder / MANIFEST
    if not manifest.exists():
        return
    # a device or a pipe in its place would be read for ever
    if manifest.is_symlink() or not stat.S_ISREG(manifest.stat().st_mode):
        raise BundleError(f"{manifest}: not a plain file; don't use this bundle")
    size = manifest.stat().st_size
    if size > MOST_MANIFEST_BYTES:
        raise BundleError(
            f"{manifest}: {size} bytes; a manifest has at most {MOST_MANIFEST_BYTES}, don't use "
            "this bundle"
        )


def _check_listing(bundle: Bundle) -> None:
    """Sizes before hashes: a file of a terabyte is refused, not read."""
    files = bundle.manifest["files"]
    if len(files) > MOST_FILES:
        raise BundleError(f"{bundle.folder}: lists {len(files)} files; at most {MOST_FILES}")
    total = 0
    for name, entry in files.items():
        size = entry.get("bytes")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BundleError(f"{bundle.folder}: {name}: size {str(size)[:40]!r} in the manifest")
        total += size
        path = bundle.folder / name
        # what is a link or missing is Bundle.problems' to say
        if path.is_symlink() or not path.exists():
            continue
        if not path.is_file():
            raise BundleError(f"{path}: not a plain file; don't use this bundle")
        if path.stat().st_size != size:
            raise BundleError(
                f"{path}: {path.stat().st_size} bytes, the manifest says {size}; copy the bundle "
                "again or build it again"
            )
    if total > MOST_BYTES:
        raise BundleError(f"{bundle.folder}: {total} bytes; at most {MOST_BYTES} are taken")


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
