"""What the report says, as plain JSON; everything a clock or this machine decides is under
`measured`, all the rest is the same whenever the same build is repeated."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deploy.analysis.device import Device
from deploy.analysis.graph_cost import graph_cost
from deploy.analysis.layer_cost import layer_costs
from deploy.analysis.layer_error import layer_errors
from deploy.analysis.layer_precision import layer_precisions
from deploy.analysis.observed_sizes import with_observed_sizes
from deploy.analysis.roofline import analysis
from deploy.analysis.stored_weights import stored_weights
from deploy.artifacts.model import as_rows
from deploy.build import load_engine, rewrites
from deploy.data import SampleSet
from deploy.report.device_content import device_content, device_evidence
from deploy.report.map_content import graph_map

if TYPE_CHECKING:
    from deploy.package import Findings

SCHEMA_VERSION = 1
_ERROR_SAMPLES = 16


def report_content(findings: Findings) -> dict[str, Any]:
    """The whole report as JSON-ready values."""
    graphs = findings.graphs
    device = device_content(findings)
    with load_engine(findings.engine, findings.judged_as, findings.precision) as engine:
        layers = [asdict(layer) for layer in engine.layers()]
        properties = engine.properties()
    if findings.device is not None and findings.device.engine is not None:
        with load_engine(findings.device.engine, findings.target, findings.precision) as engine:
            layers = [asdict(layer) for layer in engine.layers()]
    content = {
        "schema_version": SCHEMA_VERSION,
        "summary": _summary(findings, properties, device),
        "device": device,
        "model": {
            "name": graphs["source"].name,
            "sha256": graphs["source"].sha256,
            "opset": graphs["source"].opset,
            "inputs": [str(spec) for spec in graphs["simplified"].inputs],
            "outputs": [str(spec) for spec in graphs["simplified"].outputs],
        },
        "target": findings.target.model_dump(mode="json"),
        "recipe": findings.recipe.model_dump(mode="json"),
        "data": {
            "calibration": _described(findings.data.calibration),
            "evaluation": _described(findings.data.evaluation),
        },
        "sizes": _sizes(findings),
        "graph": [
            {"stage": name, **asdict(graph_cost(with_observed_sizes(model)))}
            for name, model in graphs.items()
            if name not in ("source", "uncorrected")  # that costs what the corrected one does
        ],
        "decisions": _decisions(findings),
        "parity": findings.parity.to_json(),
        "ladder": findings.ladder.to_json() if findings.ladder is not None else None,
        "layer_errors": _layer_errors(findings),
        "choice": _choice(findings),
        "precision_layers": _precision_layers(findings),
        "weights": _weights(findings),
        "layers": layers,
        "roofline": _roofline(findings),
        "engine": properties,
        "measured": {
            "tried": _tried(findings),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.system()} {platform.machine()}, {properties.get('device_name')}",
            "latency": {name: asdict(row) for name, row in findings.latency.items()},
        },
        "tools": findings.tools,
        "command": findings.job_command,
    }
    return {**content, "graph_map": graph_map(graphs, content, findings.ranges)}


def _decisions(findings: Findings) -> list[dict[str, Any]]:
    """What every stage did and left, the compiler's own rewrites of the last graph behind them."""
    graphs = findings.graphs
    rows = [row for name in graphs for row in as_rows(graphs[name].decisions)]
    for row in rewrites(findings.engine):
        if row not in rows:
            rows.append({**row, "stage": "build"})
    return rows


def _summary(
    findings: Findings, properties: dict[str, str], device: dict[str, Any] | None
) -> dict[str, Any]:
    parity = findings.parity
    return {
        "passed": parity.passed,
        "verdict": parity.verdict(),
        "model": findings.graphs["source"].name,
        "target": findings.target.name,
        "target_title": findings.target.title,
        "precision": findings.label,
        "on_target": findings.target.host,
        "accuracy": asdict(parity.task) if parity.task else None,
        "sqnr_db": min(o.sqnr_db for o in parity.outputs),
        "evidence": _evidence(findings, properties, device),
        "cautions": list(findings.cautions),
        "device": None
        if device is None
        else {"proven": device["rung_words"], "absent": device["absent"]},
    }


def _evidence(
    findings: Findings, properties: dict[str, str], device: dict[str, Any] | None
) -> list[str]:
    """How far this was proven, in words: never more than was shown."""
    target, machine = findings.target, properties.get("device_name", "this machine")
    samples = f"Judged on {findings.parity.samples} samples: {findings.parity.about}."
    if device is not None:
        shown = device_evidence(device, samples, target.title)
        if on_dla := properties.get("on_dla"):
            shown.append(f"The DLA takes {on_dla} of the network, the GPU the others.")
        return [*shown, *target.notes]
    said = [samples]
    if target.host:
        said.append(f"Built, run and timed on this machine ({machine}).")
    else:
        said.append(
            f"The engine's files are portable; they were compiled, run and timed on this machine "
            f"({machine}), not on {target.title}: speed and the last bits there are not known yet."
        )
    return said + list(target.notes)


def _described(samples: SampleSet | None) -> dict[str, Any] | None:
    if samples is None:
        return None
    return {"uri": samples.uri, "samples": len(samples), "about": samples.about}


def _sizes(findings: Findings) -> dict[str, Any]:
    """Bytes of the model and of the engine; of what is sent where that is built on the device."""
    source, device = len(findings.graphs["source"].serialized), findings.device
    if device is not None and device.absent and device.engine is None:
        sent = (device.folder / "model.onnx").stat().st_size
        return {"model": source, "engine": sent, "what": "device/model.onnx"}
    folder = device.engine if device is not None and device.engine else findings.engine
    engine = [p for p in folder.rglob("*") if p.is_file() and p.name != "stage.json"]
    size = sum(path.stat().st_size for path in engine)
    return {"model": source, "engine": size, "what": "engine folder"}


def _roofline(findings: Findings) -> dict[str, Any]:
    """The graph as it was loaded, fused, and as the engine was built from it, on the target's
    figures as its file gives them: never measured ones, which would differ between builds."""
    graphs, device = findings.graphs, Device.of(findings.target)
    precision = None if "quantized" in graphs else findings.precision
    built = graphs.get("quantized", graphs["fused"])
    fused = analysis(layer_costs(graphs["fused"]), [device])
    return {
        "loaded": analysis(layer_costs(with_observed_sizes(graphs["loaded"])), [device]),
        "fused": {key: value for key, value in fused.items() if key != "layers"},
        "built": analysis(layer_costs(built), [device], precision),
    }


def _choice(findings: Findings) -> dict[str, Any] | None:
    """What of the choice doesn't depend on a clock: the sensitivity, and what stays float."""
    if findings.choice is None:
        return None
    row = asdict(findings.choice)
    return {key: row[key] for key in ("sensitivity", "kept_float", "measured_here")}


def _tried(findings: Findings) -> dict[str, Any] | None:
    """Which engine was chosen among which, and why."""
    if findings.choice is None:
        return None
    row = asdict(findings.choice)
    return {key: row[key] for key in ("chosen", "reason", "tried")}


def _precision_layers(findings: Findings) -> list[dict[str, Any]]:
    """Which layers are INT8 and why; empty where INT8 wasn't asked for."""
    if findings.choice is None:
        return []
    graphs = findings.graphs
    exact = graphs.get("equalized", graphs["fused"])
    return [asdict(row) for row in layer_precisions(exact, graphs.get("quantized"))]


def _weights(findings: Findings) -> list[dict[str, Any]]:
    """What a weight-only build stored how; empty for others."""
    graphs = findings.graphs
    if "compressed" not in graphs:
        return []
    return [asdict(row) for row in stored_weights(graphs["fused"], graphs["compressed"])]


def _layer_errors(findings: Findings) -> list[dict[str, Any]]:
    graphs = findings.graphs
    if "quantized" not in graphs:
        return []
    samples = findings.data.evaluation.first(_ERROR_SAMPLES)
    # an equalized tensor holds other values than the fused graph's of the same name
    exact = graphs.get("equalized", graphs["fused"])
    return [asdict(row) for row in layer_errors(exact, graphs["quantized"], samples)]
