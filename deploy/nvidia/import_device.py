"""What a device found, taken into the bundle that was sent to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from deploy.artifacts.audit import Audit
from deploy.artifacts.bundle import MANIFEST, Bundle, write_manifest
from deploy.artifacts.device_report import REPORT, DeviceReport
from deploy.artifacts.ladder import Ladder
from deploy.artifacts.ranges import Ranges
from deploy.errors import BundleError, ParityError
from deploy.files import folder_aside, json_bytes, sha256_of, write_aside
from deploy.ladder.of_device import with_device
from deploy.nvidia.settings import RUNGS
from deploy.report.device_content import device_evidence
from deploy.report.html import render


def import_device(folder: Path, came_back: Path) -> Bundle:
    """The bundle with the device's engine, figures and layers in it, and the report drawn again.

    came_back: the folder finish.py ran in. BundleError, with both values, where it belongs to
    another bundle or device or a file changed; ParityError where the device missed a gate. The
    bundle is replaced whole or left as it was.
    """
    bundle = Bundle.load(folder)
    changed = _changed(bundle, came_back)
    if changed:
        raise BundleError(f"{folder}: {changed[0]}; build the bundle again before importing")
    content = _json(folder / "report.json")
    if content.get("device") is None:
        raise BundleError(
            f"{folder}: built for {bundle.manifest['target']}, which needs no other device; there "
            "is nothing to import"
        )
    report, sent = DeviceReport.load(came_back), _json(folder / "device" / MANIFEST)
    foreign = report.foreign(sent)
    if foreign:
        raise BundleError(f"{came_back}: refused: {foreign}")
    if report.content["status"] != "ok":
        reasons = "; ".join(map(str, report.content["problems"])) or "no reason given"
        raise ParityError(f"{came_back}: the device missed a gate: {reasons}", came_back)
    mismatches = [*_other_manifest(folder / "device", came_back), *report.mismatches(sent)]
    if mismatches:
        raise BundleError(f"{came_back}: refused: {'; '.join(mismatches)}")
    missed = report.missed(sent["parity"])
    if missed:
        raise ParityError(f"{came_back}: the device missed a gate: {'; '.join(missed)}", came_back)
    with folder_aside(folder) as aside:
        for name in bundle.manifest["files"]:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, aside / name)
        _take(aside, report, content)
        kept = {k: v for k, v in bundle.manifest.items() if k not in ("files", "manifest_sha256")}
        kept["results"] |= {"device": content["summary"]["device"]}
        write_manifest(aside, kept)
    return Bundle.load(folder)


def _other_manifest(sent: Path, came_back: Path) -> list[str]:
    """That the manifest which lists the files isn't the one that was sent."""
    path = came_back / MANIFEST
    if not path.is_file():
        return [f"{MANIFEST} is missing in the folder"]
    found, wanted = sha256_of(path), sha256_of(sent / MANIFEST)
    return [f"{MANIFEST} has sha256 {found[:12]}, it was {wanted[:12]}"] if found != wanted else []


def _changed(bundle: Bundle, came_back: Path) -> list[str]:
    """What isn't as it was built; what finish.py wrote, copied back over device/, may lie there."""
    found = bundle.problems()
    if came_back.resolve() != (bundle.folder / "device").resolve():
        return found
    written = tuple(f"{name}: added" for name in bundle.added() if name.startswith("device/"))
    return [line for line in found if not line.startswith(written or "\n")]


def _take(folder: Path, report: DeviceReport, content: dict[str, Any]) -> None:
    """The device's files and figures into a copy of the bundle."""
    engine = folder / "engine"
    engine.mkdir(exist_ok=True)
    came = report.folder / report.content["engine"]["file"]
    # the engine can't be loaded without them
    for library in {row["library"] for row in report.content.get("plugins") or []}:
        shutil.copyfile(report.folder / library, engine / Path(library).name)
    shutil.copyfile(came, engine / came.name)
    shutil.copyfile(report.folder / REPORT, folder / REPORT)
    device = content["device"] | {
        "rung": "device",
        "rung_words": RUNGS["device"],
        "report": report.content,
    }
    content |= {"device": device, "layers": report.content.get("layers", content["layers"])}
    said, target = content["summary"], content["target"]
    said["device"] = {"proven": RUNGS["device"], "absent": ""}
    samples = said["evidence"][1] if len(said["evidence"]) > 1 else ""
    said["evidence"] = device_evidence(device, samples, target["title"]) + target["notes"]
    path = folder / "parity" / "ladder.json"
    if path.is_file():
        sent = _json(folder / "device" / MANIFEST)
        climbed = with_device(Ladder.load(path), report.content, sent)
        climbed.save(path)
        content["ladder"] = climbed.to_json()
    write_aside(folder / "report.json", json_bytes(content))
    ranges = _loaded(Ranges, folder / "ranges.json")
    audited = _loaded(Audit, folder / "audit.json")
    write_aside(folder / "report.html", render(content, ranges, audited).encode())


def _loaded(kind: Any, path: Path) -> Any:
    return kind.load(path) if path.is_file() else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: unreadable ({error}); build the bundle again") from None
    if not isinstance(found, dict):
        raise BundleError(f"{path}: not a table; build the bundle again")
    return found
