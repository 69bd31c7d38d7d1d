"""What differs between two bundles: in what went in, in what was decided, in what came out.

The result is plain JSON; `deploy.report.diff` makes a page of it. "before" is the first bundle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.artifacts.bundle import Bundle
from deploy.artifacts.ranges import Ranges
from deploy.diff.decisions import decisions
from deploy.diff.first import first
from deploy.diff.inputs import inputs
from deploy.diff.results import results
from deploy.errors import BundleError
from deploy.files import sha256_of

SCHEMA_VERSION = 1
_READ = ("report.json", "ranges.json")


@dataclass(frozen=True)
class Side:
    """One of the two bundles, read and checked. content: its report.json."""

    folder: Path
    manifest: dict[str, Any]
    content: dict[str, Any]
    ranges: Ranges | None


def diff(before: Path, after: Path) -> dict[str, Any]:
    """Two bundles compared; BundleError for a folder that isn't one, or was changed."""
    sides = side(before), side(after)
    try:
        found = _compared(*sides)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(
            f"{before} and {after}: the report.json of one of them isn't what this onnx-deploy "
            f"writes ({error!r}); build both again with the same version"
        ) from None
    return {**found, "first": first(found)}


def _compared(before: Side, after: Side) -> dict[str, Any]:
    went_in = inputs(before, after)
    return {
        "schema_version": SCHEMA_VERSION,
        "before": _named(before),
        "after": _named(after),
        "inputs": went_in,
        "decisions": decisions(before, after),
        "results": results(before, after, went_in["comparable"]),
    }


def side(folder: Path) -> Side:
    """A bundle with its report; what isn't as the manifest says is refused."""
    bundle = Bundle.load(folder)
    for name in _READ:
        listed = bundle.manifest["files"].get(name)
        path = folder / name
        if listed is None:
            continue
        if path.is_symlink() or not path.is_file() or sha256_of(path) != listed.get("sha256"):
            raise BundleError(
                f"{path}: not as it was built; see `deploy verify {folder}`, and build the bundle "
                "again or copy it again"
            )
    if "report.json" not in bundle.manifest["files"]:
        raise BundleError(f"{folder}: the manifest lists no report.json; build the bundle again")
    content = _content(folder / "report.json")
    ranges = folder / "ranges.json"
    known = "ranges.json" in bundle.manifest["files"]
    return Side(folder, bundle.manifest, content, Ranges.load(ranges) if known else None)


def _content(path: Path) -> dict[str, Any]:
    from deploy.report.content import SCHEMA_VERSION as KNOWN

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: unreadable ({error}); build the bundle again") from None
    if not isinstance(content, dict) or content.get("schema_version") != KNOWN:
        version = content.get("schema_version") if isinstance(content, dict) else None
        raise BundleError(
            f"{path}: schema version {version!r}, this onnx-deploy reads {KNOWN}; use the version "
            "that built it, or build again"
        )
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _named(one: Side) -> dict[str, Any]:
    """How a bundle is told from the other."""
    said = one.content["summary"]
    return {
        "folder": one.folder.name or str(one.folder),
        "model": said["model"],
        "target": said["target"],
        "precision": said["precision"],
        "status": one.manifest["status"],
        "passed": said["passed"],
        "created": one.content["measured"]["created"],
        "machine": one.content["measured"]["machine"],
    }
