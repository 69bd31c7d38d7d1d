"""The arrays of a .npz from elsewhere, whose headers may claim what the file doesn't hold."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import numpy.lib.format as npy

from deploy.errors import BundleError, one_line

# arrays are small in a file and large in memory: zip packs zeros a thousandfold
_ARRAY_BYTES = 2 * 2**30


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
