"""Files that are whole or absent: write aside, then rename; and hashes of what was written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ASIDE = ".partial"


def write_aside(path: Path, data: bytes) -> None:
    """The file with exactly this content, or the file as it was before."""
    aside = path.with_name(f"{path.name}{_ASIDE}")
    try:
        with aside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        # a full disk is reported by the write, which knows no name
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """A fresh folder to fill, which takes the place of `path` only when the block ends well."""
    old = _old(path)
    if old.exists() and not path.exists():
        old.rename(path)  # the last swap was killed between its two renames
    aside = path.with_name(f"{path.name}{_ASIDE}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        _swap(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _swap(aside: Path, path: Path) -> None:
    if not path.exists():
        aside.rename(path)
        return
    old = _old(path)
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    try:
        aside.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _old(path: Path) -> Path:
    """Where the former folder waits while the new one takes its place."""
    return path.with_name(f"{path.name}.old")


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
