"""A bundle from elsewhere: every size, path and hash is checked before any of it is used."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy.lib.format as npy

from deploy.artifacts.bundle import MANIFEST, Bundle
from deploy.errors import BundleError, one_line

_MANIFEST_BYTES = 16 * 2**20
_FILES = 10_000
_BUNDLE_BYTES = 64 * 2**30
# arrays are small in a file and large in memory: zip packs zeros a thousandfold
_ARRAY_BYTES = 2 * 2**30
# these are written into configurations, Dockerfiles and requirements
_PLAIN = {
    "precision": re.compile(r"fp32|fp16|bf16|int8"),
    "target": re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}"),
    "model.sha256": re.compile(r"[0-9a-f]{64}"),
    "tools.openvino": re.compile(r"\d+(\.\d+){1,3}[A-Za-z0-9.+-]*|not installed"),
}


def load_untrusted(folder: Path) -> Bundle:
    """The bundle, each file as its manifest says; BundleError with the first thing that isn't.

    Sizes come first: nothing large is read, or hashed, that the manifest doesn't announce.
    """
    path = folder / MANIFEST
    if path.is_symlink():
        raise BundleError(f"{path}: a link; don't use this bundle")
    if path.is_file() and path.stat().st_size > _MANIFEST_BYTES:
        raise BundleError(
            f"{path}: {path.stat().st_size} bytes, no manifest has more than {_MANIFEST_BYTES}; "
            "don't use this bundle"
        )
    try:
        bundle = Bundle.load(folder)
    except RecursionError:
        raise BundleError(f"{path}: nested too deep; don't use this bundle") from None
    _check_values(bundle)
    _check_sizes(bundle)
    problems = bundle.problems()
    if problems:
        raise BundleError(f"{folder}: {problems[0]}; build the bundle again or copy it again")
    if bundle.manifest["status"] != "ok":
        raise BundleError(
            f"{folder}: status {bundle.manifest['status']!r}, only a bundle whose engine passed "
            "its gates is served; see its report.html"
        )
    return bundle


def _check_values(bundle: Bundle) -> None:
    for key, allowed in _PLAIN.items():
        value: object = bundle.manifest
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, str) or not allowed.fullmatch(value):
            raise BundleError(
                f"{bundle.folder}: {key} is {str(value)[:60]!r} in the manifest; no build writes "
                "that, don't use this bundle"
            )


def array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every array in a .npz, of which only the headers are read.

    BundleError for what no build writes: pickled objects, a header that promises more than the
    file holds, more than a few GiB.
    """
    found = {}
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    shape, size = _header(stream)
                total += entry.file_size
                if size > entry.file_size or total > _ARRAY_BYTES:
                    raise BundleError(
                        f"{path}: {entry.filename} unpacks to {max(size, total)} bytes; don't use "
                        "this bundle"
                    )
                found[entry.filename.removesuffix(".npy")] = shape
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{path}: unreadable ({one_line(error)}); don't use it") from None
    return found


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], int]:
    """Shape and bytes of the array that begins here; ValueError where none does."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    return shape, math.prod(shape) * dtype.itemsize


def _check_sizes(bundle: Bundle) -> None:
    listed = bundle.manifest["files"]
    if len(listed) > _FILES:
        raise BundleError(f"{bundle.folder}: lists {len(listed)} files, more than {_FILES}")
    total = 0
    for name, entry in sorted(listed.items()):
        said = entry.get("bytes")
        if not isinstance(said, int) or isinstance(said, bool) or said < 0:
            raise BundleError(f"{bundle.folder}: {name}: size {said!r} in the manifest")
        path = bundle.folder / name
        # a link, a missing file and a path that leads out are named by the check of the hashes
        inside = ".." not in path.parts and path.is_relative_to(bundle.folder)
        if inside and path.is_file() and not path.is_symlink() and path.stat().st_size != said:
            raise BundleError(
                f"{bundle.folder}: {name}: {path.stat().st_size} bytes, the manifest says {said}; "
                "copy the bundle again"
            )
        total += said
    if total > _BUNDLE_BYTES:
        raise BundleError(f"{bundle.folder}: {total} bytes, more than {_BUNDLE_BYTES}")
