"""device_report.json and the engine: whole or absent, and never older than the run they are of."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from deploy.on_device.manifest_check import Manifest, canonical_json

REPORT_FILE = "device_report.json"
REPORT_SCHEMA = 1
ENGINE_FILE = "model.engine"
# where the host packed an engine already, one that is built here must not take its place
REBUILT_FILE = "rebuilt.engine"


class DeviceReport:
    """What a run found, filled as it goes; `problems` decide between "ok" and "failed"."""

    def __init__(self, manifest: Manifest) -> None:
        self.problems: list[str] = []
        self.overrides: list[str] = []
        self.found: dict[str, Any] = {
            "manifest_sha256": manifest["manifest_sha256"],
            "device": {},
            "built_with": None,
            "engine": None,
            "plugins": [],
            "plugin_choice": None,
            "layers": [],
            "messages": [],
            "on_dla": {},
            "int8": None,
            "parity": None,
            "latency": None,
        }

    def to_json(self) -> dict[str, Any]:
        """The report as it is written."""
        return {
            "schema_version": REPORT_SCHEMA,
            "status": "failed" if self.problems else "ok",
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "problems": self.problems,
            "overrides": self.overrides,
            **self.found,
        }

    def save(self, folder: Path) -> None:
        """Write it into the folder; what a run leaves is finished only with this file."""
        write_whole(folder / REPORT_FILE, canonical_json(self.to_json()))


def forget_report(folder: Path) -> None:
    """Take away an earlier run's report: what follows may change what it is about."""
    path = folder / REPORT_FILE
    if path.exists():
        path.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """The file with exactly this content, or the file as it was before."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        if aside.exists():
            aside.unlink()
