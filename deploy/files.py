"""Files that are whole or absent: write aside, then rename; and hashes of what was written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_aside(path: Path, data: bytes) -> None:
    """The file with exactly this content, or the file as it was before."""
    aside = _beside(path, "partial")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with aside.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        # the user knows the file that was asked for, not the one aside
        if isinstance(error, OSError):
            error.filename = str(path)
            error.filename2 = None
        raise


@contextmanager
def folder_aside(path: Path, *, within: Path | None = None) -> Iterator[Path]:
    """A fresh folder to fill, which takes the place of `path` only when the block ends well.

    within: where it is filled meanwhile, on the same file system; beside `path` if not given.
    """
    aside = _beside(path, "partial", within)
    aside.mkdir(parents=True)
    try:
        yield aside
        _swap(aside, path, within)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _swap(aside: Path, path: Path, within: Path | None) -> None:
    if not path.exists():
        aside.rename(path)
        return
    old = _beside(path, "old", within)
    path.rename(old)
    try:
        aside.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, kind: str, within: Path | None = None) -> Path:
    """A hidden name that nothing has yet: what isn't ours is never in the way."""
    return (within or path.parent) / f".{path.name}.{secrets.token_hex(6)}.{kind}"


def json_bytes(value: Any) -> bytes:
    """JSON with a stable key order, readable, ending in a newline; NaN is refused."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def sha256_of(path: Path) -> str:
    """The hash of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
