"""package.json: every file of a package with its hash, and what was changed since.

It tells damage and careless changes; who forges a file can forge this list too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.errors import one_line
from deploy.files import sha256_of

RECORD = "package.json"
SCHEMA_VERSION = 1
_LARGEST_BYTES = 2**24
# meant to be edited: judged by the format's rules, not by their hash
_EDITED = (
    *("config.pbtxt", "config.json"),
    *("Dockerfile", "docker-compose.yml", "prometheus.yml"),
)


def changes_since(folder: Path) -> list[str]:
    """What isn't as it was packaged, one line each.

    A configuration may be changed, and a version or a model be put beside: the rules judge those.
    What lies in a folder with files that were written and aren't configurations stays as it is.
    """
    try:
        listed = _listed(folder / RECORD)
    except (OSError, ValueError, RecursionError) as error:
        return [
            f"{RECORD}: {one_line(error)}; without it nobody knows what was changed, package again"
        ]
    there = {
        p.relative_to(folder).as_posix(): p
        for p in folder.rglob("*")
        if p.is_symlink() or not p.is_dir()
    }
    odd = [name for name, p in sorted(there.items()) if p.is_symlink() or not p.is_file()]
    if odd:
        return [f"{name}: a link or no plain file; copy what it stands for" for name in odd]
    found = [said for name in sorted(listed) for said in _changed(name, listed[name], there)]
    return [*found, *_added(listed, there)]


def _listed(path: Path) -> dict[str, str]:
    if path.is_symlink() or not path.is_file():
        raise ValueError("missing")
    if path.stat().st_size > _LARGEST_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes")
    record: Any = json.loads(path.read_text(encoding="utf-8"))
    listed = record.get("files") if isinstance(record, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
        raise ValueError("no table of files with their hashes")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"schema version {str(record.get('schema_version'))[:20]!r}, not {SCHEMA_VERSION}"
        )
    return listed


def _changed(name: str, wanted: str, there: dict[str, Path]) -> Iterator[str]:
    path = there.get(name)
    if path is None:
        yield f"{name}: missing, it was packaged"
    elif not _is_edited(name):
        got = sha256_of(path)
        if got != wanted:
            yield f"{name}: changed (sha256 {got[:12]}, was {wanted[:12]}); package again"


def _added(listed: dict[str, str], there: dict[str, Path]) -> Iterator[str]:
    sealed = {PurePosixPath(name).parent for name in listed if not _is_edited(name)}
    sealed.discard(PurePosixPath())
    for name in sorted(there.keys() - listed.keys()):
        if sealed & set(PurePosixPath(name).parents):
            yield f"{name}: added to what was packaged; take it out, or package again"


def _is_edited(name: str) -> bool:
    path = PurePosixPath(name)
    # the configuration of a format, not a file of that name inside of a bundle
    return path.name in _EDITED and len(path.parts) <= (2 if path.name == "config.pbtxt" else 1)
