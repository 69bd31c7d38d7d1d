"""A bundle from elsewhere, before its words and arrays go into a server's configuration."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import numpy.lib.format as npy

from deploy.artifacts.bundle import Bundle
from deploy.artifacts.untrusted import load_untrusted
from deploy.errors import BundleError, one_line

# arrays are small in a file and large in memory: zip packs zeros a thousandfold
_ARRAY_BYTES = 2 * 2**30
# these are written into configurations, Dockerfiles and requirements
_PLAIN = {
    "model.name": re.compile(r".*", re.DOTALL),
    "precision": re.compile(r"fp32|fp16|bf16|int8"),
    "target": re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}"),
    "model.sha256": re.compile(r"[0-9a-f]{64}"),
    "tools.openvino": re.compile(r"\d+(\.\d+){1,3}[A-Za-z0-9.+-]*|not installed"),
}


def load_servable(folder: Path) -> Bundle:
    """The bundle, safe to package; BundleError with the first thing that no build writes."""
    bundle = load_untrusted(folder)
    _check_values(bundle)
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


def stored_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz; BundleError where one is damaged or claims what the file doesn't hold.

    Any size is taken that really is there: the bundle is the user's own to look at.
    """
    # NumPy makes room for what a header claims before it reads anything
    array_shapes(path, most_bytes=None)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{path}: unreadable ({error}); build the bundle again") from None


def array_shapes(path: Path, most_bytes: int | None = _ARRAY_BYTES) -> dict[str, tuple[int, ...]]:
    """The shape of every array in a .npz, of which only the headers are read.

    BundleError for what no build writes: pickled objects, a header that promises more than the
    file holds, more than `most_bytes` (none: any number).
    """
    found = {}
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    shape, size = _header(stream)
                total += entry.file_size
                if size > entry.file_size:
                    raise BundleError(
                        f"{path}: damaged: {entry.filename} unpacks to {size} bytes as it says, "
                        f"and has {entry.file_size}; don't use this bundle"
                    )
                if most_bytes is not None and total > most_bytes:
                    raise BundleError(
                        f"{path}: {entry.filename} unpacks to {total} bytes; don't use this bundle"
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
