"""The section about a device that isn't this machine: what was sent, and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.precisions import in_words
from deploy.report import units
from deploy.report.table import Row, bullets, folded, name, number, paragraph, table
from deploy.target import QUANTIZED

Content = Mapping[str, Any]

# layers that aren't INT8 on the device and are listed with their reasons
_NAMED = 20
_PARTS = ("device", "device_sent", "device_files", "device_found", "device_layers")
_FORMS = {
    "explicit": "{} as Q/DQ in the graph",
    "implicit": "{} by a calibration cache and a precision per layer, beside a float graph",
    "none": "no INT8",
}


def device(content: Content) -> dict[str, str]:
    """The values of page.html's device section; all empty for targets that need none."""
    found = content.get("device")
    if found is None:
        return dict.fromkeys(_PARTS, "")
    kind = kind_of(content["summary"]["precision"])
    rows: list[Row] = [
        [name(file), number(units.size(size), size)]
        for file, size in sorted(found["files"].items())
    ]
    files = table("Files of device/", ["File", "#Bytes"], rows, level=0)
    return {
        "device": "yes",
        "device_sent": bullets(_sent(found, kind)),
        "device_files": folded(f"All {len(rows)} files of device/", files),
        "device_found": _found(found["report"], kind),
        "device_layers": _layers(found["vendor_layers"], kind),
    }


def kind_of(precision: str) -> str:
    """How the 8 bits of a build are called; INT8 where it has none."""
    return in_words(precision if precision in QUANTIZED else "int8")


def _layers(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    """What the compiler made of each layer with weights; empty where it wasn't asked."""
    if not rows:
        return ""
    listed: list[Row] = [
        [
            name(row["layer"]),
            row["operator"],
            kind if row["int8"] else "float",
            name(row["kernel"]),
            row["precision"],
            row["reason"],
        ]
        for row in sorted(rows, key=lambda row: bool(row["int8"]))
    ]
    others = sum(not row["int8"] for row in rows)
    columns = ["Layer", "Operator", "Reads", "Kernel", "Types", f"Why not {kind}"]
    title = f"What the compiler made of {len(rows)} layers with weights: {others} not in {kind}"
    return folded(title, table("Layers with weights", columns, listed, level=0))


def _sent(found: Content, kind: str) -> list[str]:
    nvidia = found["nvidia"]
    library = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}[nvidia["library"]]
    typing = {"weak": "types chosen by its compiler", "strong": "types as the graph gives them"}
    software = (
        f"{library} {', '.join(nvidia['versions'])}, CUDA {nvidia['cuda']}, compute capability "
        f"{nvidia['compute_capability']}; {typing[nvidia['typing']]}."
    )
    lines = [
        software,
        f"{_FORMS[found['quantization']].format(kind)}; what isn't {kind} in {found['rest']}.",
    ]
    if nvidia["use_dla"]:
        lines.append(f"Layers go to one of {nvidia['dla_cores']} DLA cores, the rest to the GPU.")
    if found["plugins"]:
        listed = ", ".join(row["op"] for row in found["plugins"])
        lines.append(f"Kernels of our own, compiled on the device: {listed}.")
    bound = found["parity"]["rounding_sqnr_db"]
    if bound:
        lowest = min(bound.values())
        lines.append(
            f"Rounding may differ there: with every quantized value off by up to one step the "
            f"outputs keep {units.decibel(lowest)} to the simulation, which is the limit that "
            "finish.py allows, less 3 dB."
        )
    return lines


def _found(report: Content | None, kind: str) -> str:
    """What the device reported; empty until it has."""
    if report is None:
        return ""
    on = report["device"]
    built = (
        f"{on.get('name', 'device')}: {on.get('library', '')} {on.get('version', '')}, compute "
        f"capability {on.get('compute_capability', '')}, built with {report['built_with']} in "
        f"{report['engine'].get('seconds', 0):.0f} s."
    )
    lines = [built]
    latency = report.get("latency")
    if latency:
        on_gpu = latency.get("gpu_median_ms")
        differs = on_gpu and on_gpu != latency["median_ms"]
        part = f"; {units.ms(on_gpu)} of it on the GPU" if differs else ""
        lines.append(
            f"Latency: {units.ms(latency['median_ms'])} median, {units.ms(latency['p90_ms'])} at "
            f"90 %, of {latency['runs']} runs ({latency.get('how', '')}{part})."
        )
    choice = report.get("plugin_choice")
    if choice:
        kept = "in the engine" if choice["chosen"] == "with plugins" else "left out of the engine"
        lines.append(f"Kernels of our own are {kept}: {choice['reason']}.")
    counted = report.get("int8") or {}
    if counted:
        lines.append(
            f"{counted['layers_int8']} layers run in {kind}, {counted['layers_float']} in float."
        )
    on_dla = report.get("on_dla") or {}
    if on_dla:
        share = f"{sum(map(bool, on_dla.values()))} of {len(on_dla)} layers"
        lines.append(f"{share} run on the DLA, the others on the GPU.")
    for row in (counted.get("not_int8") or [])[:_NAMED]:
        lines.append(f"Not in {kind}: {row['name']}: {row['reason']}")
    lines += [f"Refused check passed over by hand: {text}" for text in report.get("overrides", [])]
    outputs: list[Row] = [
        [
            name(row["name"]),
            number(units.decibel(row["sqnr_db"]), row["sqnr_db"]),
            number(units.decibel(row["simulated_sqnr_db"]), row["simulated_sqnr_db"]),
            number(f"{row['cosine']:.5f}", row["cosine"]),
        ]
        for row in report["parity"]["outputs"]
    ]
    columns = ["Output", "#SQNR to float32", "#SQNR to the simulation", "#Cosine"]
    told = paragraph("What the device found:") + bullets(lines)
    return told + table("Outputs on the device", columns, outputs)
