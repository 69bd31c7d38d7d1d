"""What finish.py found on a device, checked before anything of it is believed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.artifacts.device_form import misfit
from deploy.errors import BundleError
from deploy.files import sha256_of

SCHEMA_VERSION = 1
REPORT = "device_report.json"
_REQUIRED = ("status", "problems", "manifest_sha256", "device", "engine", "parity", "built_with")
# a device that missed a gate may have ended before it had these
_TABLES = ("device", "engine", "parity")


@dataclass(frozen=True)
class DeviceReport:
    """A folder that came back from a device; `content` is its parsed device_report.json."""

    folder: Path
    content: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> DeviceReport:
        """Read the report; BundleError when there is none, or it isn't one we know."""
        path = folder / REPORT
        if not path.is_file():
            raise BundleError(
                f"{folder}: no {REPORT}; run `python3 finish.py` in the bundle's device/ folder on "
                "the device, and give the folder it ran in"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(f"{path}: unreadable ({error}); run finish.py again") from None
        except RecursionError:
            raise BundleError(f"{path}: nested too deep; run finish.py again") from None
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path}: schema version {version!r}, this onnx-deploy reads {SCHEMA_VERSION}; "
                "build the bundle again and run its finish.py"
            )
        missing = [key for key in _REQUIRED if key not in content]
        if not missing and content["status"] == "ok":
            missing = [key for key in _TABLES if not isinstance(content[key], dict)]
        if missing:
            raise BundleError(f"{path}: {', '.join(missing)} missing; run finish.py again")
        wrong = _wrong_form(content) if content["status"] == "ok" else ""
        if wrong:
            raise BundleError(f"{path}: {wrong}; run finish.py again")
        return cls(folder, content)

    def foreign(self, sent: dict[str, Any]) -> str:
        """Why it isn't about what was `sent`; "" where it is."""
        theirs, ours = self.content["manifest_sha256"], sent["manifest_sha256"]
        if theirs == ours:
            return ""
        return f"it reports on device/ of manifest {str(theirs)[:12]}, this bundle sent {ours[:12]}"

    def missed(self, wanted: dict[str, Any]) -> list[str]:
        """The thresholds of the manifest that its own figures don't meet."""
        found = []
        for row in self.content["parity"]["outputs"]:
            for key, figure in (("min_sqnr_db", "sqnr_db"), ("min_cosine", "cosine")):
                limit = wanted.get(key)
                if limit is not None and row[figure] < limit:
                    found.append(f"{figure} of {row['name']!r} is {row[figure]:.4g}, needs {limit}")
        return found

    def mismatches(self, sent: dict[str, Any]) -> list[str]:
        """What differs from the manifest `sent` with the bundle, each with both values."""
        foreign = self.foreign(sent)
        found = [foreign] if foreign else []
        found += self._device(sent["nvidia"]) + self._plugins(sent.get("plugins", []))
        return found + self._files(sent["files"])

    def _device(self, wanted: dict[str, Any]) -> list[str]:
        device, found = self.content["device"] or {}, []
        for key, what in (("compute_capability", "compute capability"), ("library", "library")):
            if device.get(key) != wanted[key]:
                found.append(f"{what} {device.get(key)!r}, the bundle is for {wanted[key]!r}")
        version = str(device.get("version", ""))
        releases = {_release(v) for v in wanted["versions"]}
        if _release(version) not in releases:
            listed = ", ".join(wanted["versions"])
            found.append(f"{wanted['library']} {version!r}, the bundle is for {listed}")
        return found

    def _plugins(self, sent: list[dict[str, Any]]) -> list[str]:
        """Its engine has all kernels that were sent, or none; a choice it tells of says which."""
        ours = sorted(str(row["folder"]) for row in sent)
        theirs = sorted(str(row.get("folder")) for row in self.content.get("plugins") or [])
        kept = (self.content.get("plugin_choice") or {}).get("chosen") == "with plugins"
        if theirs == ours or (not theirs and not kept):
            return []
        got = ", ".join(theirs) or "none, in an engine that was kept for them"
        return [f"plugins: {got}; the bundle sent {', '.join(ours) or 'none'}"]

    def _files(self, listed: dict[str, Any]) -> list[str]:
        found = []
        rows = [(name, row["sha256"]) for name, row in sorted(listed.items())]
        engine = self.content["engine"]
        if engine:
            rows.append((str(engine.get("file")), engine.get("sha256")))
        plugins = self.content.get("plugins") or []
        rows += [(str(row.get("library")), row.get("sha256")) for row in plugins]
        for name, wanted in rows:
            path = self.folder / name
            if not path.resolve().is_relative_to(self.folder.resolve()) or not path.is_file():
                found.append(f"{name} is missing in the folder")
                continue
            got = sha256_of(path)
            if got != wanted:
                found.append(f"{name} has sha256 {got[:12]}, it was {str(wanted)[:12]}")
        return found


def _release(version: str) -> tuple[str, ...]:
    """Engines and API are of a major.minor release."""
    return tuple(version.split(".")[:2])


def _wrong_form(content: dict[str, Any]) -> str:
    """What of a report of success can't be believed; "" where all is as finish.py writes it."""
    if content["problems"]:
        return f"status ok beside the problem {content['problems'][0]!r}"
    found = misfit(content)
    if found:
        return found
    parity, latency = content["parity"], content.get("latency")
    if not parity["outputs"] or parity["samples"] < 1:
        return "parity without samples or outputs"
    if not all(gate["passed"] for gate in parity["gates"]):
        return "a gate that wasn't passed"
    if latency is not None and not all(latency[key] > 0 for key in ("median_ms", "p90_ms", "runs")):
        return "latency isn't positive numbers"
    return ""
