"""The folder as the host packed it: its manifest, and whether this device is the one it is for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.on_device.device_error import DeviceError
from deploy.on_device.manifest_form import wrong_fields

MANIFEST_FILE = "manifest.json"
MANIFEST_SCHEMA = 1
# folders whose every file is compiled or read, so that nothing may join them
_CLOSED_FOLDERS = ("plugins", "parity")
_MOST_NAMED = 5
# what `--allow` can waive: the reason why each is refused otherwise
WAIVERS = {
    "version": "calibration cache, graph and kernels were made for the other release",
    "sm": "the graph was shaped, and its plugins were chosen, for the other GPU",
}


class RefusedError(DeviceError):
    """The folder or the device isn't what the manifest says; the message has both values."""


class Manifest:
    """manifest.json: its fields under their names, `content` the whole of it."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder = folder
        self.content = content

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    @property
    def nvidia(self) -> dict[str, Any]:
        """The device's software and hardware, as the target describes them."""
        table: dict[str, Any] = self.content["nvidia"]
        return table

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Hash and size per file."""
        table: dict[str, dict[str, Any]] = self.content["files"]
        return table

    @property
    def implicit(self) -> bool:
        """Whether INT8 is described beside a float graph."""
        return bool(self.content["quantization"] == "implicit")

    def data(self, name: str) -> bytes:
        """A listed file's content; RefusedError for one that isn't listed."""
        if name not in self.files:
            raise RefusedError(
                f"{name} isn't in {MANIFEST_FILE}; build the bundle again on the host"
            )
        return (self.folder / name).read_bytes()

    def text(self, name: str) -> str:
        """A listed file's content as text; DeviceError where it is none."""
        try:
            return self.data(name).decode()
        except UnicodeDecodeError as error:
            raise DeviceError(f"{name}: not UTF-8 ({error}); copy the folder again") from None


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest; DeviceError when there is none or it isn't one this script reads."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise DeviceError(
            f"{folder}: no {MANIFEST_FILE}; run finish.py inside the device/ folder of a bundle"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeviceError(f"{path}: unreadable ({error}); copy the folder again") from None
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != MANIFEST_SCHEMA:
        raise DeviceError(
            f"{path}: schema version {found!r}, this finish.py reads {MANIFEST_SCHEMA}; use the "
            "finish.py that came with this folder"
        )
    wrong = list(wrong_fields(content))
    if not wrong and not content["nvidia"]["versions"]:
        wrong = ["nvidia.versions is empty"]
    if wrong:
        raise DeviceError(
            f"{path}: {'; '.join(wrong[:_MOST_NAMED])}; build the bundle again on the host"
        )
    return Manifest(folder, content)


def file_sha256(path: Path) -> str:
    """The hash of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def manifest_hash(content: dict[str, Any]) -> str:
    """The manifest's hash of itself: over its JSON without that key, as the host writes it."""
    rest = {key: value for key, value in content.items() if key != "manifest_sha256"}
    return hashlib.sha256(canonical_json(rest)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with a stable key order, readable, ending in a newline; NaN is refused."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def file_problems(manifest: Manifest) -> list[str]:
    """What differs from the manifest, a line per file; empty when nothing that matters does.

    A file that isn't listed matters where every file is compiled or read: in plugins/ and parity/.
    """
    found = []
    own, wanted = manifest_hash(manifest.content), manifest["manifest_sha256"]
    if own != wanted:
        found.append(f"{MANIFEST_FILE}: changed (sha256 {own[:12]}, says {wanted[:12]})")
    for name, entry in sorted(manifest.files.items()):
        problem = _file_problem(manifest.folder, name, entry)
        if problem:
            found.append(f"{name}: {problem}")
    return found + [f"{name}: added, the manifest doesn't know it" for name in _added(manifest)]


def _file_problem(folder: Path, name: str, entry: Any) -> str:
    pure = PurePosixPath(name)
    path = folder / name
    if pure.is_absolute() or ".." in pure.parts or path.is_symlink():
        return "leads out of the folder; don't use this folder"
    if not path.is_file():
        return "missing"
    wanted = str(entry.get("sha256")) if isinstance(entry, dict) else "nothing"
    size = entry.get("bytes") if isinstance(entry, dict) else None
    if path.stat().st_size != size:
        return f"changed ({path.stat().st_size} bytes, was {size})"
    got = file_sha256(path)
    return "" if got == wanted else f"changed (sha256 {got[:12]}, was {wanted[:12]})"


def _added(manifest: Manifest) -> list[str]:
    found = []
    for part in _CLOSED_FOLDERS:
        for path in sorted((manifest.folder / part).rglob("*")):
            name = path.relative_to(manifest.folder).as_posix()
            if name not in manifest.files and (path.is_symlink() or not path.is_dir()):
                found.append(name)
    return found


def check_version(
    manifest: Manifest, installed: str, *, exact: bool, allow: Sequence[str], ranges: bool = True
) -> str:
    """Nothing ("") when the library's release is one the folder is for; else RefusedError with both
    values.

    exact: major.minor.patch of the first release, which a calibration cache names; else major.minor
    of any. ranges: whether scales could go in without a cache. Where "version" is allowed the
    refusal is returned as a note.
    """
    versions = [str(version) for version in manifest.nvidia["versions"]]
    library = manifest.nvidia["library"]
    if exact:
        fits = release(installed)[:3] == release(versions[0])[:3]
        wanted = f"{versions[0]} (exactly: its calibration cache names it)"
        hint = ", or leave the cache out with --scales ranges" if ranges else ""
    else:
        fits = any(release(installed)[:2] == release(version)[:2] for version in versions)
        wanted, hint = ", ".join(versions), ""
    if fits:
        return ""
    return _refuse_or_note(
        "version",
        f"{library} {installed} is installed, this folder is for {wanted}: {WAIVERS['version']}; "
        f"build on the host for a target with {installed}{hint}",
        allow,
    )


def check_capability(manifest: Manifest, found: str, allow: Sequence[str]) -> str:
    """Nothing ("") when the GPU's compute capability is the folder's; else RefusedError with both.

    Where "sm" is allowed the refusal is returned as a note.
    """
    wanted = manifest.nvidia["compute_capability"]
    if found == wanted:
        return ""
    seen = f"compute capability {found}" if found else "a compute capability nothing here can tell"
    return _refuse_or_note(
        "sm",
        f"this GPU has {seen}, this folder is for {wanted} ({manifest['target']['title']}): "
        f"{WAIVERS['sm']}; build on the host for this device",
        allow,
    )


def _refuse_or_note(waiver: str, message: str, allow: Sequence[str]) -> str:
    if waiver not in allow:
        raise RefusedError(f"{message}, or try it all the same with --allow {waiver}")
    return message


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: (8, 5, 2, 2) of "8.5.2.2"."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
