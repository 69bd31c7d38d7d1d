"""Two bundles on disk that differ in what a test says, and in nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mapped import mapped_content

from deploy.artifacts.bundle import write_manifest
from deploy.artifacts.ranges import Ranges
from deploy.diff.bundles import diff


def content() -> dict[str, Any]:
    """A quantized build that passed, with its graph."""
    found = mapped_content()
    found["target"] |= {"name": "cpu"}
    return found


def bundle(folder: Path, found: dict[str, Any], ranges: Ranges | None = None, **given: Any) -> Path:
    """A bundle folder whose report says this; `given` goes into the manifest."""
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(found), encoding="utf-8")
    if ranges is not None:
        ranges.save(folder / "ranges.json")
    manifest = {
        "status": "ok" if found["summary"]["passed"] else "parity failed",
        "model": {"name": found["model"]["name"], "sha256": found["model"]["sha256"]},
        "target": found["summary"]["target"],
        "precision": found["summary"]["precision"],
        "recipe": found["recipe"],
        "data": {"calibration_sha256": "aa", "evaluation_sha256": "bb"},
        "tools": found["tools"],
        "command": found["command"],
        "results": {},
        **given,
    }
    write_manifest(folder, manifest)
    return folder


def compared(
    folder: Path,
    before: dict[str, Any],
    after: dict[str, Any],
    ranges: tuple[Ranges | None, Ranges | None] = (None, None),
    **given: Any,
) -> dict[str, Any]:
    """The two as bundles `one` and `two`, compared; `given` goes into the second's manifest."""
    return diff(
        bundle(folder / "one", before, ranges[0]), bundle(folder / "two", after, ranges[1], **given)
    )


def said(found: dict[str, Any]) -> dict[str, str]:
    """What matters first, by kind, with plain spaces."""
    return {row["kind"]: row["text"].replace("\N{NO-BREAK SPACE}", " ") for row in found["first"]}
