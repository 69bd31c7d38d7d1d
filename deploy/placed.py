"""A target's placement on one model: its graph, what of it is quantized, with which parameters.

What every way of writing INT8 down begins with: Q/DQ in the graph (`deploy.quantize`) and a
calibration cache beside it (`deploy.nvidia.implicit`) take their numbers from here: they are the
same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx.defs
import onnx_graphsurgeon as gs

from calibrators.ranges import Range
from deploy import registry
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.errors import CalibrationError, RecipeError, nearest
from deploy.floats.float8 import NAME as FLOAT8
from deploy.floats.float8 import OPSET as FLOAT8_OPSET
from deploy.floats.float8 import Params, activation
from deploy.layer_kinds import KINDS
from deploy.placement import Exclude, Placement, SharedScale, one_scale, without
from deploy.surgery.graph import label, to_graph
from deploy.surgery.lower_opset import lower_to
from deploy.surgery.opset import raise_for
from deploy.target import Quantization, Target


@dataclass(frozen=True)
class Placed:
    """graph: linked, in an opset the target reads. placement: of nodes of that graph.
    ranges: per tensor, those of one scale united. groups: per tensor, those of its scale."""

    graph: gs.Graph
    placement: Placement
    ranges: Mapping[str, Range]
    groups: Mapping[str, SharedScale]

    def params(self, name: str, form: Quantization) -> Params:
        """The parameters of an activation; CalibrationError when it has no range."""
        found = self.ranges.get(name)
        if found is None:
            raise CalibrationError(
                f"no range for tensor {name!r}; the ranges belong to another graph, calibrate again"
            )
        return activation(found, form)

    def shared_with(self, name: str) -> str:
        """Words for the tensors of the same scale; empty where there are none."""
        group = self.groups.get(name)
        if group is None:
            return ""
        others = [repr(other) for other in group.tensors if other != name]
        more = f" and {len(others) - 2} more" if len(others) > 2 else ""
        return f"; one scale with {', '.join(others[:2])}{more}: {group.reason}"


def place(model: Model, ranges: Ranges, target: Target, exclude: Exclude) -> Placed:
    """What the target's placement quantizes of the model, less what is excluded.

    CalibrationError when the ranges are another model's, nothing is left to quantize or the target
    can't read the model's opset; RecipeError for an exclusion of something that isn't there.
    """
    if ranges.source.model_sha256 != model.sha256:
        raise CalibrationError(
            f"ranges made from model {ranges.source.model_sha256[:12]}, this one is "
            f"{model.sha256[:12]}; calibrate this model, after all fusions"
        )
    graph = to_graph(model)
    check_names(exclude, graph)
    _lower(graph, model, target)
    placement = without(
        registry.load("placement", target.placement)(graph), exclude.also(_infinite(ranges))
    )
    if not placement.activations:
        said = [d.reason for d in placement.skipped if d.rule == "exclude"]
        said += [d.reason for d in placement.skipped]
        left = f": {said[0]}" if said else ""
        raise CalibrationError(
            f"{model.name}: nothing to quantize in {len(graph.nodes)} nodes{left}; build a float "
            "precision, such as --fp32"
        )
    united, groups = _united(ranges, placement)
    return Placed(graph, placement, united, groups)


def _infinite(ranges: Ranges) -> Exclude:
    """Tensors that no range can cover."""
    count = len(ranges.source.sample_sha256)
    return Exclude(
        tensors={
            name: f"{name!r} holds Inf on {held} of {count} samples, which no range can cover"
            for name, held in ranges.infinite.items()
        }
    )


def _united(
    ranges: Ranges, placement: Placement
) -> tuple[dict[str, Range], dict[str, SharedScale]]:
    """The range of every calibrated tensor, over all of its group where it shares a scale."""
    united = {name: tensor.range for name, tensor in ranges.tensors.items()}
    groups = one_scale(placement.shared)
    for group in groups:
        # a tensor without a range is named when its parameters are asked for
        names = [name for name in group.tensors if name in united]
        if names:
            low, high = min(united[n].low for n in names), max(united[n].high for n in names)
            united.update(dict.fromkeys(names, Range(low, high)))
    return united, {name: group for group in groups for name in group.tensors}


def _lower(graph: gs.Graph, model: Model, target: Target) -> None:
    highest = target.quantization.highest_opset
    obstacle = None if highest is None else lower_to(graph, highest)
    if obstacle is not None:
        raise CalibrationError(
            f"{model.name}: opset {model.opset}, target {target.name!r} reads up to {highest}, and "
            f"{obstacle}; export the model with opset {highest}"
        )
    if target.quantization.activation_dtype == FLOAT8:
        refused = raise_for(graph, FLOAT8_OPSET, "fp8", ())
        if refused is not None:
            raise CalibrationError(f"{model.name}: {refused}; export the model with that opset")


def check_names(exclude: Exclude, graph: gs.Graph) -> None:
    """RecipeError for a layer, tensor or kind that the graph doesn't have."""
    layers = {label(node) for node in graph.nodes}
    operators = {node.op for node in graph.nodes}
    for what, names, known in (
        ("layer", exclude.layers, layers),
        ("tensor", exclude.tensors, set(graph.tensors())),
        ("kind", exclude.kinds, set(KINDS)),
    ):
        for name in names:
            if name in known or (what == "kind" and onnx.defs.has(name)):
                continue
            near = nearest(name, known) or nearest(name, operators | set(KINDS))
            there = f"an operator or {', '.join(KINDS)}" if what == "kind" else "one of the graph's"
            raise RecipeError(f"no {what} {name!r} to leave in float{near}; name {there}")
