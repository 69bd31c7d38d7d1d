"""What the report says of a device that isn't this machine, as plain JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from deploy.nvidia.device import more_moved, said_of_eight_bits
from deploy.nvidia.settings import RUNGS
from deploy.precisions import in_words
from deploy.target import QUANTIZED

if TYPE_CHECKING:
    from deploy.package import Findings


def device_content(findings: Findings) -> dict[str, Any] | None:
    """How far the build was proven, what is sent to the device and what remains to be done there.

    `report` stays None until `deploy import` brings what the device found. None for targets that
    need none.
    """
    device = findings.device
    if device is None:
        return None
    manifest = json.loads((device.folder / "manifest.json").read_text(encoding="utf-8"))
    return {
        "rung": device.rung,
        "rung_words": RUNGS[device.rung],
        "absent": device.absent,
        "engine_built": device.engine is not None,
        "vendor_layers": [asdict(row) for row in device.vendor],
        "moved": dict(device.moved),
        "eight_bits": device.eight_bits,
        "quantization": manifest["quantization"],
        "rest": manifest["rest"],
        "nvidia": manifest["nvidia"],
        "plugins": manifest["plugins"],
        "parity": manifest["parity"],
        "files": {name: row["bytes"] for name, row in manifest["files"].items()},
        "manifest_sha256": manifest["manifest_sha256"],
        "report": None,
    }


def device_evidence(content: dict[str, Any], samples: str, title: str) -> list[str]:
    """The same in sentences for the first page: the rung, what was shown here, what remains."""
    nvidia = content["nvidia"]
    library = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}[nvidia["library"]]
    version = nvidia["versions"][0]
    said = [f"How far this build was proven: {content['rung_words']}.", samples]
    report = content["report"]
    if report is not None:
        device = report["device"]
        said.append(
            f"finish.py built, checked and timed the engine on {device.get('name', 'the device')} "
            f"with {library} {device.get('version', version)}, on {report['parity']['samples']} "
            "samples; what it found is under Device. Accuracy, gates and layer errors on this page "
            f"are of {'the simulation on the host' if content['absent'] else 'the engine before'}."
        )
        return said
    if not content["absent"]:
        counted = content.get("eight_bits")
        return [*said, f"In its engine {said_of_eight_bits(counted)}."] if counted else said
    said.append(
        f"The device is not here ({content['absent']}). ONNX Runtime ran the graph that is sent to "
        "it, as the device is to compute it; the device itself may round otherwise, and its speed "
        "isn't known."
    )
    if content["engine_built"]:
        said.append(
            f"{library} {version} parsed, compiled and wrote the engine in engine/ on this machine."
        )
    rows, moved = content["vendor_layers"], content["moved"]
    if rows:
        integers = sum(row["int8"] for row in rows)
        kinds = [in_words(name) for name in moved if name in QUANTIZED]
        said += [f"{integers} of {len(rows)} layers with weights read {k} in it." for k in kinds]
    if max(moved.values(), default=0) > moved.get("fp16", 0) > 0:
        said.append(f"Of speed: {more_moved(moved)}.")
    said.append(
        f"Remains: copy device/ to the device ({title}; {library} {version}), run `python3 "
        "finish.py` in it, and give the folder back to `deploy import`."
    )
    return said
