"""A fused model as the rules of `deploy doctor` look at it, and what they say of it."""

from __future__ import annotations

from collections.abc import Collection

from deploy import registry
from deploy.artifacts.model import Model, copy_proto
from deploy.doctor.case import Case, Finding
from deploy.loading.shapes import apply_shapes
from deploy.surgery.graph import to_graph
from deploy.surgery.lower_opset import lower_to
from deploy.surgery.raw_input import cast_raw_inputs
from deploy.target import Precision, Target

# rules that do what a build does anyway, and then ends with
_TRIED = ("reference", "strong_typing", "vendor_compiler")


def fused_case(
    source: Model, target: Target, precision: Precision, loaded: Model, fused: Model
) -> Case:
    """The graph at the engine's batch in the opset the device reads."""
    sent = _at_batch(fused, target)
    # as the device's parser gets it (`deploy.nvidia.dialect`)
    graph = to_graph(sent if target.engine.nvidia is None else cast_raw_inputs(sent))
    highest = target.quantization.highest_opset
    higher = highest is not None and fused.opset > highest
    obstacle = lower_to(graph, highest) if higher and highest is not None else None
    return Case(
        target=target,
        precision=precision,
        raw=source.proto,
        loaded=loaded,
        fused=fused,
        graph=graph,
        obstacle=obstacle or "",
        lowered_from=fused.opset if higher and obstacle is None else 0,
        decisions=fused.decisions,
    )


def all_rules(case: Case, *, without: Collection[str] = ()) -> list[Finding]:
    """What every rule says, in the order of their files."""
    rules = [registry.load("rule", name) for name in registry.names("rule") if name not in without]
    return [finding for rule in rules for finding in rule(case)]


def foreseen(case: Case) -> list[str]:
    """A sentence per thing that keeps an engine from being built on a device that isn't here."""
    return [
        f"no engine comes of it on {case.target.name}, as `deploy doctor` says: {finding.text}"
        for finding in all_rules(case, without=_TRIED)
        if finding.level == "stop"
    ]


def _at_batch(model: Model, target: Target) -> Model:
    """The model with its free batch fixed as the engine's is."""
    batch = target.engine.batch
    if batch == "dynamic":
        return model
    proto = copy_proto(model.proto)
    fixed = {
        spec.name: (spec.shape[0] or batch, *spec.shape[1:])
        for spec in model.inputs
        if spec.shape and spec.shape[0] is None
    }
    free = {spec.name: spec.shape for spec in model.inputs if spec.name not in fixed}
    apply_shapes(proto, {**free, **fixed}, model.name)
    return model.derive(proto, model.decisions)
