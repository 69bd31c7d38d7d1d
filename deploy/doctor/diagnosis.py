"""Whether a target can take a model, and what the line would do to it: said before calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from calibrators.preprocess import Preprocess
from deploy.artifacts.model import Decision, Model
from deploy.doctor.case import Case, Finding
from deploy.doctor.dla_segments import Segments
from deploy.doctor.forecast import Forecast, forecast
from deploy.doctor.fused_case import all_rules, fused_case
from deploy.doctor.rules.dla import segments
from deploy.errors import ModelError
from deploy.fold_input import fold_input
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.loading.shapes import Shapes
from deploy.noise import free_dimensions
from deploy.nvidia.settings import RUNGS
from deploy.precisions import quantized_as
from deploy.simplify import simplify
from deploy.target import QUANTIZED, Precision, Target, offered
from deploy.target_page import proven, remains
from deploy.widen import widen

_LEVELS = ("stop", "warning", "note")


@dataclass(frozen=True)
class Rewritten:
    """What one fusion would do: how often, and the bytes per sample that it saves."""

    rule: str
    count: int
    bytes_saved: int


@dataclass(frozen=True)
class Diagnosis:
    """findings: the gravest first. rewrites: in the fusions' order. segments, forecast: None where
    the target has none, or the model can't be followed so far."""

    model: str
    target: Target
    precision: Precision
    findings: tuple[Finding, ...]
    rewrites: tuple[Rewritten, ...] = ()
    segments: Segments | None = None
    forecast: Forecast | None = None

    @property
    def go(self) -> bool:
        """Whether nothing is known to be in the way of an engine."""
        return all(finding.level != "stop" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """What `deploy doctor --json` prints."""
        rung, done = proven(self.target)
        return {
            "model": self.model,
            "target": self.target.name,
            "precision": self.precision,
            "go": self.go,
            "findings": [asdict(finding) for finding in self.findings],
            "rewrites": [asdict(row) for row in self.rewrites],
            "dla": _dla_rows(self.segments) if self.segments else None,
            "int8": asdict(self.forecast) if self.forecast else None,
            "proven": {"rung": rung, "words": RUNGS[rung], "done": done},
            "remains": remains(self.target),
        }


def doctor(
    path: Path,
    target: Target,
    *,
    shapes: Shapes,
    precision: Precision | None = None,
    images: Preprocess | None = None,
) -> Diagnosis:
    """What stands between the model and an engine for the target.

    images: how raw ones become the model's input, where the engine does that itself.

    ModelError when the file can't be read at all; what load refuses is a finding.
    """
    wanted = offered(target, precision or target.default_precision)
    target = quantized_as(target, wanted)
    source = read(path)
    try:
        written = onnx.load(path, load_external_data=False)
        case = case_of(source, target, wanted, shapes, written, images=images)
    except ModelError as error:
        found = Finding("load", "stop", str(error))
        return Diagnosis(source.name, target, wanted, (found,))
    findings = all_rules(case)
    foretold = forecast(case)
    if foretold is not None and foretold.why_none:
        findings.append(Finding("nothing_quantized", "stop", foretold.why_none))
    findings.sort(key=lambda finding: _LEVELS.index(finding.level))
    static = not free_dimensions(case.loaded.inputs)
    return Diagnosis(
        source.name,
        target,
        wanted,
        tuple(findings),
        _rewrites(case.decisions),
        segments(case) if static else None,
        foretold,
    )


def case_of(
    source: Model,
    target: Target,
    precision: Precision,
    shapes: Shapes,
    raw: onnx.ModelProto | None = None,
    *,
    images: Preprocess | None = None,
) -> Case:
    """The model as far as fusion, its graph at the engine's batch in the opset the device reads.

    raw: the file with its plugin operators, which reading spells out. ModelError as `load`.
    """
    loaded = _load(source, shapes)
    if images is not None:
        loaded = fold_input(loaded, images)
    wide = widen(loaded) if precision in QUANTIZED else loaded
    fused = fuse(simplify(wide), target.fusions)
    found = fused_case(source, target, precision, loaded, fused)
    written = found.raw if raw is None else raw
    return replace(found, raw=written, widened=wide.decisions if wide is not loaded else ())


def _load(source: Model, shapes: Shapes) -> Model:
    """The model as it is; free dimensions that a build asks about stay free here."""
    free = {
        spec.name: spec.shape
        for spec in source.inputs
        if spec.name not in shapes and None in spec.shape[1:]
    }
    return load(source, {**shapes, **free})


def _rewrites(decisions: tuple[Decision, ...]) -> tuple[Rewritten, ...]:
    applied = [d for d in decisions if d.outcome == "applied"]
    rows = {rule: [d for d in applied if d.rule == rule] for rule in {d.rule: 0 for d in applied}}
    return tuple(
        Rewritten(rule, len(found), sum(d.bytes_saved for d in found))
        for rule, found in rows.items()
    )


def _dla_rows(found: Segments) -> dict[str, Any]:
    return {
        "parts": [{"dla": part.dla, "layers": list(part.layers)} for part in found.parts],
        "loadables": found.loadables,
        "transitions": found.transitions,
        "on_gpu": dict(found.refused),
    }
