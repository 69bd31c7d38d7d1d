"""Explicit Q/DQ: the float graph with its ranges made visible, in the target's INT8 form."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from calibrators.ranges import Affine, activation_params, weight_params
from deploy import registry
from deploy.artifacts.model import Decision, Model
from deploy.artifacts.ranges import Ranges
from deploy.errors import CalibrationError
from deploy.fuse import fuse
from deploy.placement import ActivationQuant, Placement, WeightQuant
from deploy.surgery.graph import label, to_graph, to_model
from deploy.target import Quantization, Target


def quantize(model: Model, ranges: Ranges, target: Target) -> Model:
    """The model with QuantizeLinear/DequantizeLinear where the target's placement wants them.

    Weights: symmetric per output channel; activations: per tensor, uint8 or int8 as the target
    says. The target's quantized_fusions then let data move as integers. CalibrationError when a
    tensor has no range, the ranges are another model's, or no layer can be quantized.
    """
    if ranges.source.model_sha256 != model.sha256:
        raise CalibrationError(
            f"ranges made from model {ranges.source.model_sha256[:12]}, this one is "
            f"{model.sha256[:12]}; calibrate this model, after all fusions"
        )
    graph = to_graph(model)
    placement: Placement = registry.load("placement", target.placement)(graph)
    if not placement.activations:
        left = f": {placement.skipped[0].reason}" if placement.skipped else ""
        raise CalibrationError(
            f"{model.name}: nothing to quantize in {len(graph.nodes)} nodes{left}; build a float "
            "precision, such as --fp32"
        )
    surgeon = _Surgeon(graph, ranges, target.quantization)
    for activation in placement.activations:
        surgeon.quantize_activation(activation)
    for weight in placement.weights:
        surgeon.quantize_weight(weight)
    placed = to_model(graph, model, ())
    moved = fuse(placed, target.quantized_fusions)
    decisions = [*surgeon.decisions, *placement.skipped, *moved.decisions]
    return moved.derive(moved.proto, decisions)


@dataclass
class _Surgeon:
    """Inserts Q/DQ into a graph: one pair per activation, one DQ per weight and axis."""

    graph: gs.Graph
    ranges: Ranges
    form: Quantization
    decisions: list[Decision] = field(default_factory=list)
    pairs: dict[str, gs.Variable] = field(default_factory=dict)
    stored: dict[tuple[str, int | None], gs.Variable] = field(default_factory=dict)

    def quantize_activation(self, placed: ActivationQuant) -> None:
        tensor = placed.node.inputs[placed.index]
        if tensor.name not in self.pairs:
            params = self._activation_params(tensor.name)
            self.pairs[tensor.name] = self._pair(tensor, params)
            self._decide("activation", tensor.name, _described(params, placed.reason))
        placed.node.inputs[placed.index] = self.pairs[tensor.name]

    def quantize_weight(self, placed: WeightQuant) -> None:
        tensor = placed.node.inputs[placed.index]
        key = (tensor.name, placed.axis)
        if key not in self.stored:
            weights = np.asarray(tensor.values)
            params = weight_params(weights, placed.axis, self.form.weight_bits)
            self.stored[key] = self._stored(tensor.name, weights, params, placed.axis)
            scales = "1 scale" if placed.axis is None else f"{params.scale.size} scales"
            reason = f"int8 within ±{params.qmax}, {scales}, weights of {label(placed.node)}"
            self._decide("weight", tensor.name, reason)
        placed.node.inputs[placed.index] = self.stored[key]

    def _activation_params(self, name: str) -> Affine:
        found = self.ranges.tensors.get(name)
        if found is None:
            raise CalibrationError(
                f"no range for tensor {name!r}; the ranges belong to another graph, calibrate again"
            )
        return activation_params(
            found.range, self.form.activation_dtype, self.form.activation_symmetric
        )

    def _pair(self, tensor: gs.Tensor, params: Affine) -> gs.Variable:
        name = tensor.name
        integers = gs.Variable(f"{name}/quantized", params.zero_point.dtype, tensor.shape)
        floats = gs.Variable(f"{name}/dequantized", tensor.dtype, tensor.shape)
        self._node("QuantizeLinear", tensor, integers, params)
        self._node("DequantizeLinear", integers, floats, params)
        return floats

    def _stored(
        self, name: str, weights: np.ndarray, params: Affine, axis: int | None
    ) -> gs.Variable:
        suffix = "" if axis in (0, None) else f"/axis{axis}"
        integers = gs.Constant(f"{name}{suffix}/int8", params.quantize(weights))
        floats = gs.Variable(f"{name}{suffix}/dequantized", weights.dtype, weights.shape)
        self._node("DequantizeLinear", integers, floats, params, axis)
        return floats

    def _node(
        self, op: str, source: gs.Tensor, out: gs.Variable, params: Affine, axis: int | None = None
    ) -> None:
        scale = gs.Constant(f"{out.name}/scale", params.scale)
        zero = gs.Constant(f"{out.name}/zero_point", params.zero_point)
        attrs = {} if axis is None else {"axis": axis}
        self.graph.nodes.append(
            gs.Node(op, f"{out.name}/{op}", attrs, [source, scale, zero], [out])
        )

    def _decide(self, rule: str, subject: str, reason: str) -> None:
        self.decisions.append(Decision("quantize", rule, "applied", subject, reason))


def _described(params: Affine, reason: str) -> str:
    return (
        f"{params.zero_point.dtype}, scale {float(params.scale):.6g}, "
        f"zero point {int(params.zero_point)}, {reason}"
    )
