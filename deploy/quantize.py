"""Explicit Q/DQ: the float graph with its ranges made visible, in the target's INT8 form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from calibrators.float8 import Float8
from calibrators.ranges import Affine
from deploy.artifacts.model import Decision, Model
from deploy.artifacts.ranges import Ranges
from deploy.errors import CalibrationError
from deploy.floats.float8 import IR_VERSION as FLOAT8_IR
from deploy.floats.float8 import NAME as FLOAT8
from deploy.floats.float8 import Params, code_type, zero_point
from deploy.floats.float8 import constant as quantized_constant
from deploy.floats.float8 import weight as weight_params
from deploy.fuse import fuse
from deploy.placed import Placed, place
from deploy.placement import NOTHING, ActivationQuant, Exclude, WeightQuant
from deploy.surgery.conversion import dtype_of
from deploy.surgery.graph import constant, label, to_model
from deploy.target import Quantization, Target

_INT32 = np.iinfo(np.int32)


def quantize(model: Model, ranges: Ranges, target: Target, *, exclude: Exclude = NOTHING) -> Model:
    """The model with QuantizeLinear/DequantizeLinear where the target's placement wants them.

    Weights: symmetric, per output channel unless the target says per tensor; activations: per
    tensor, uint8, int8 or float8 as the target says. exclude: what stays in float all the same. The
    target's quantized_fusions then let data move as integers. CalibrationError when a tensor has
    no range, the ranges are another model's, or no layer can be quantized; RecipeError for an
    exclusion of something that isn't there.
    """
    form = target.quantization
    if form.form != "qdq":
        raise CalibrationError(
            f"target {target.name!r} takes INT8 in the form {form.form!r}, without Q/DQ in the "
            "graph; `deploy build` makes its calibration cache"
        )
    placed = place(model, ranges, target, exclude)
    surgeon = _Surgeon(placed, form)
    for activation in placed.placement.activations:
        surgeon.quantize_activation(activation)
    for weight in placed.placement.weights:
        surgeon.quantize_weight(weight)
        if form.bias_form == "int32":
            surgeon.quantize_bias(weight)
    made = to_model(placed.graph, model, ())
    if form.activation_dtype == FLOAT8:
        made.proto.ir_version = max(made.proto.ir_version, FLOAT8_IR)
    moved = fuse(made, target.quantized_fusions)
    decisions = [*surgeon.decisions, *placed.placement.skipped, *moved.decisions]
    return moved.derive(moved.proto, decisions)


@dataclass
class _Surgeon:
    """Inserts Q/DQ into a graph: one pair per activation, one weight per tensor and axis."""

    placed: Placed
    form: Quantization
    decisions: list[Decision] = field(default_factory=list)
    pairs: dict[str, gs.Variable] = field(default_factory=dict)
    stored: dict[tuple[str, int | None], gs.Variable] = field(default_factory=dict)
    done: set[tuple[int, int]] = field(default_factory=set)
    scales: dict[int, np.ndarray] = field(default_factory=dict)

    def quantize_activation(self, placed: ActivationQuant) -> None:
        # two layers may want the same input: the one that reads it, and the one that makes it
        if (id(placed.node), placed.index) in self.done:
            return
        self.done.add((id(placed.node), placed.index))
        tensor = placed.tensor
        if tensor.name not in self.pairs:
            _check_float(tensor, placed.node)
            params = self.placed.params(tensor.name, self.form)
            self.pairs[tensor.name] = self._pair(tensor, tensor.name, params)
            reason = _described(params, placed.reason) + self.placed.shared_with(tensor.name)
            self._decide("activation", tensor.name, reason)
        placed.node.inputs[placed.index] = self.pairs[tensor.name]

    def quantize_weight(self, placed: WeightQuant) -> None:
        tensor = placed.node.inputs[placed.index]
        key = (tensor.name, placed.axis if self.form.weight_per_channel else None)
        if key not in self.stored:
            _check_float(tensor, placed.node)
            params = weight_params(np.asarray(tensor.values), placed.axis, self.form)
            self.stored[key] = self._weight(tensor, params)
            kind = FLOAT8 if isinstance(params, Float8) else f"int8 within ±{params.qmax}"
            reason = f"{kind}, {_count(params)}, weights of {label(placed.node)}"
            self._decide("weight", tensor.name, reason)
        placed.node.inputs[placed.index] = self.stored[key]

    def quantize_bias(self, placed: WeightQuant) -> None:
        """int32 in steps of scale(data) * scale(weights), the unit the layer's sums are in."""
        node = placed.node
        data, weight = (self.scales.get(id(node.inputs[i])) for i in (0, placed.index))
        values = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if values is None or data is None or weight is None:
            return
        flat = values.reshape(-1)
        step = np.asarray(data * weight, np.float32)
        refusal = _why_float_bias(values, step)
        if refusal is not None:
            self._decide("bias", node.inputs[2].name, refusal, "skipped")
            return
        zeros = np.zeros(step.shape, np.int32)
        params = Affine(step, zeros, _INT32.min, _INT32.max, 0 if step.ndim else None)
        # its steps are this layer's own, so it is named after what the layer makes
        name = f"{node.outputs[0].name}/bias"
        node.inputs[2] = self._integers(name, params.quantize(flat.astype(np.float64)), params)
        self._decide("bias", node.inputs[2].name, f"int32, {_count(params)}, of {label(node)}")

    def _pair(self, tensor: gs.Tensor, name: str, params: Params) -> gs.Variable:
        integers = gs.Variable(f"{name}/quantized", code_type(params), tensor.shape)
        floats = gs.Variable(f"{name}/dequantized", tensor.dtype, tensor.shape)
        self._node("QuantizeLinear", tensor, integers, params)
        self._node("DequantizeLinear", integers, floats, params)
        return floats

    def _weight(self, tensor: gs.Tensor, params: Params) -> gs.Variable:
        name = tensor.name if params.axis in (0, None) else f"{tensor.name}/axis{params.axis}"
        if self.form.weight_form == "fp32":
            return self._pair(tensor, name, params)
        return self._integers(name, params.quantize(np.asarray(tensor.values)), params)

    def _integers(self, name: str, values: np.ndarray, params: Params) -> gs.Variable:
        kind = FLOAT8 if isinstance(params, Float8) else values.dtype
        integers = quantized_constant(values, params, f"{name}/{kind}")
        floats = gs.Variable(f"{name}/dequantized", np.dtype(np.float32), values.shape)
        self._node("DequantizeLinear", integers, floats, params)
        return floats

    def _node(self, op: str, source: gs.Tensor, out: gs.Variable, params: Params) -> None:
        scale = gs.Constant(f"{out.name}/scale", params.scale)
        zero = quantized_constant(zero_point(params), params, f"{out.name}/zero_point")
        attrs = {} if params.axis is None else {"axis": params.axis}
        self.scales[id(out)] = params.scale
        self.placed.graph.nodes.append(
            gs.Node(op, f"{out.name}/{op}", attrs, [source, scale, zero], [out])
        )

    def _decide(
        self,
        rule: str,
        subject: str,
        reason: str,
        outcome: Literal["applied", "skipped"] = "applied",
    ) -> None:
        self.decisions.append(Decision("quantize", rule, outcome, subject, reason))


def _check_float(tensor: gs.Tensor, node: gs.Node) -> None:
    """Q/DQ in front of a value that isn't float32 would change its readers' type."""
    if dtype_of(tensor) != np.float32:
        raise CalibrationError(
            f"{tensor.name!r} at {label(node)} is {dtype_of(tensor)}; Q/DQ goes around float32 "
            "only. `deploy widen` makes such a model float32, or build a float precision, such as "
            "--fp16"
        )


def _why_float_bias(values: np.ndarray, step: np.ndarray) -> str | None:
    """Why a bias stays float; None for one value per output channel that int32 holds."""
    if values.dtype != np.float32 or values.ndim == 0 or values.size != values.shape[-1]:
        return f"{values.dtype}{list(values.shape)} isn't one float32 per output channel"
    if step.size not in (1, values.size):
        return f"{values.size} values for {step.size} output channels"
    largest = float((np.abs(values.reshape(-1)) / step.astype(np.float64)).max())
    if largest > _INT32.max:
        return f"{largest:.3g} steps of its layer's scale, more than int32 holds"
    return None


def _count(params: Params) -> str:
    return "1 scale" if params.axis is None else f"{params.scale.size} scales"


def _described(params: Params, reason: str) -> str:
    if isinstance(params, Float8):
        return f"{FLOAT8}, scale {float(params.scale):.6g}, {reason}"
    return (
        f"{params.zero_point.dtype}, scale {float(params.scale):.6g}, "
        f"zero point {int(params.zero_point)}, {reason}"
    )
