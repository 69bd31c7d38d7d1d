"""A bundle that came from elsewhere: sizes, paths and hashes checked before any of it is used.

Hashes say that nothing changed since the build, not who built it.
"""

from __future__ import annotations

import stat
from pathlib import Path

from deploy.artifacts.bundle import MANIFEST, Bundle
from deploy.errors import BundleError

# far above what a build writes; what is read whole has to fit into a small device's memory
MOST_MANIFEST_BYTES = 16 << 20
MOST_BYTES = 64 << 30
MOST_FILES = 10_000


def load_untrusted(folder: Path) -> Bundle:
    """The bundle, each file as its manifest says; BundleError with the first thing that isn't.

    Sizes come first: nothing large is read, or hashed, that the manifest doesn't announce.
    """
    _check_manifest(folder / MANIFEST)
    try:
        bundle = Bundle.load(folder)
    except RecursionError:
        raise BundleError(f"{folder / MANIFEST}: nested too deep; don't use this bundle") from None
    _check_listing(bundle)
    problems = bundle.problems()
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise BundleError(
            f"{folder}: {problems[0]}{more}; not used, copy the bundle again or build it again"
        )
    return bundle


def _check_manifest(manifest: Path) -> None:
    # a device or a pipe in its place would be read for ever
    if manifest.is_symlink() or (manifest.exists() and not stat.S_ISREG(manifest.stat().st_mode)):
        raise BundleError(f"{manifest}: a link, or not a plain file; don't use this bundle")
    size = manifest.stat().st_size if manifest.exists() else 0
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
    for name, entry in sorted(files.items()):
        size = entry.get("bytes")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BundleError(f"{bundle.folder}: {name}: size {str(size)[:40]!r} in the manifest")
        total += size
        _check_size(bundle.folder, name, size)
    if total > MOST_BYTES:
        raise BundleError(f"{bundle.folder}: {total} bytes; at most {MOST_BYTES} are taken")


def _check_size(folder: Path, name: str, said: int) -> None:
    path = folder / name
    # what leads out, is a link or is missing is Bundle.problems' to say
    inside = ".." not in path.parts and path.is_relative_to(folder)
    if not inside or path.is_symlink() or not path.exists():
        return
    if not path.is_file():
        raise BundleError(f"{path}: not a plain file; don't use this bundle")
    if path.stat().st_size != said:
        raise BundleError(
            f"{path}: {path.stat().st_size} bytes, the manifest says {said}; copy the bundle "
            "again or build it again"
        )
