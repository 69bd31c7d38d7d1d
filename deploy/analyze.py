"""The two views of a model, compute and memory, on any devices, before and after fusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from deploy.analysis.device import Device
from deploy.analysis.layer_cost import layer_costs
from deploy.analysis.observed_sizes import with_observed_sizes
from deploy.analysis.probe import Measured, probe
from deploy.analysis.roofline import analysis
from deploy.artifacts.model import Decision
from deploy.errors import RecipeError
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.loading.shapes import Shapes
from deploy.simplify import simplify
from deploy.target import Precision, Target

_DEFAULT = "cpu"


def analyze(
    path: Path,
    names: Sequence[str],
    *,
    shapes: Shapes,
    precision: Precision | None = None,
    probed: bool = False,
) -> dict[str, Any]:
    """What `deploy analyze --json` prints: the graph after fusion, and under "original" as it came.

    The fusions are those of the first name that is a target; a row of hardware has none, and where
    there is nothing else the default target's are taken.
    """
    devices = [Device.find(name) for name in dict.fromkeys(names or (_DEFAULT,))]
    if precision and not any(precision in device.precisions for device in devices):
        had = "; ".join(f"{d.name} has {', '.join(d.precisions)}" for d in devices)
        raise RecipeError(f"{precision} is not offered by any device that was named: {had}")
    measured = _probe(devices) if probed else ()
    if measured:
        best = _best(measured)
        devices = [d.measured(best) if _is_host(d) else d for d in devices]
    target = next((d.target for d in devices if d.target), None) or Target.load(_DEFAULT)
    loaded = load(read(path), shapes)
    fused = fuse(simplify(loaded), target.fusions)
    return {
        "model": loaded.name,
        **analysis(layer_costs(with_observed_sizes(fused)), devices, precision),
        "original": analysis(layer_costs(with_observed_sizes(loaded)), devices, precision),
        "fusions": {"target": target.name, "rules": _fired(fused.decisions)},
        "probe": [asdict(row) for row in measured],
    }


def _probe(devices: Sequence[Device]) -> tuple[Measured, ...]:
    host = next((d.target for d in devices if d.target and _is_host(d)), None)
    if host is None:
        raise RecipeError(
            f"--probe measures this machine, and {', '.join(d.name for d in devices)} is not it; "
            "add --target cpu"
        )
    found = probe(host)
    # a bundle's device may be called anything; the machine's name is what people compare by
    return tuple(replace(row, machine=row.machine or "this machine") for row in found)


def _best(measured: Sequence[Measured]) -> Measured:
    """The most the machine reached, on whatever number of threads: mostly on all of them."""
    rates = {
        p: max(row.peak_flops[p] for row in measured if p in row.peak_flops)
        for p in measured[-1].peak_flops
    }
    copied = max(row.bandwidth_bytes_per_s for row in measured)
    return replace(measured[-1], peak_flops=rates, bandwidth_bytes_per_s=copied)


def _is_host(device: Device) -> bool:
    return device.target is not None and device.target.host


def _fired(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """Per fusion: how often it fired, was skipped, and the traffic it saved."""
    rules = dict.fromkeys(d.rule for d in decisions)
    return [
        {
            "rule": rule,
            "applied": sum(d.outcome == "applied" for d in decisions if d.rule == rule),
            "skipped": sum(d.outcome == "skipped" for d in decisions if d.rule == rule),
            "bytes_saved": sum(d.bytes_saved for d in decisions if d.rule == rule),
        }
        for rule in rules
    ]
