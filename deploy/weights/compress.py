"""Weights stored as int8 or int4 and multiplied out by the engine; activations stay float.

    W   =>   DequantizeLinear(integers, scale)

A model of large matrices spends its time reading them, so it gets faster as they shrink. OpenVINO
keeps this form compressed for MatMul, Gemm and Gather (measured on 2026.4: FullyConnected and
Gather read the integers) and unfolds it for Conv, where only the file gets smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from deploy.artifacts.model import Decision, Model
from deploy.errors import ModelError
from deploy.surgery.graph import to_graph, to_model
from deploy.surgery.opset import raise_for
from deploy.weights.grid import Grid, fit_grid, noise
from deploy.weights.layer_weights import LayerWeight, layer_weights
from deploy.weights.rounding import compensated, decibels, output_db
from deploy.weights.second_moments import Reader

# from which opset on DequantizeLinear takes int4 and blocks, and the file version that has int4
_INT4_OPSET = 21
_INT4_IR_VERSION = 10
# a weight that loses more than this is sensitive; values of a normal distribution reach 42 and 20
_LEAST_DB = {8: 30.0, 4: 14.0}
# a larger group is taken while it loses no more than this against the smallest
_GROUP_COST_DB = 2.0


@dataclass(frozen=True)
class WeightForm:
    """How a target stores weights.

    bits: 8, one scale per output channel; 4, one per `group` inputs of a channel, the largest of
    `groups` that loses little. symmetric: without zero points. layers: the operators that are
    compressed at all; narrow: those that take 4 bits. smallest_bytes: smaller weights stay float.
    narrow_ends: 4 bits for the first and last layers too.
    """

    bits: int = 8
    symmetric: bool = True
    groups: tuple[int, ...] = (128, 64, 32)
    layers: tuple[str, ...] = ("MatMul", "Gemm", "Conv", "Gather")
    narrow: tuple[str, ...] = ("MatMul", "Gemm")
    smallest_bytes: int = 16_384
    narrow_ends: bool = False


def compress(
    model: Model, form: WeightForm, moments: Mapping[Reader, np.ndarray] | None = None
) -> Model:
    """The model with its large weights behind DequantizeLinear, and a reason for each that isn't.

    moments: `second_moments` of `readers(model, form)`; with them 4-bit weights are rounded so that
    the layer's output changes least (GPTQ). ModelError when no weight can be compressed.
    """
    graph = to_graph(model)
    plans, decisions = _plan(graph, form)
    for plan in plans:
        stored = _stored(plan, form, moments or {})
        if isinstance(stored, str):
            decisions.append(Decision("compress", "weights", "skipped", plan.weight.name, stored))
            continue
        _place(graph, plan.weight, stored)
        decisions.append(_applied(plan, stored))
    if not any(d.outcome == "applied" for d in decisions):
        left = f": {decisions[0].subject}: {decisions[0].reason}" if decisions else ""
        raise ModelError(
            f"{model.name}: no weights to compress in {len(graph.nodes)} nodes{left}; build a "
            "float precision, such as --fp32"
        )
    made = to_model(graph, model, decisions)
    if any(d.rule == "int4" for d in decisions):
        made.proto.ir_version = max(made.proto.ir_version, _INT4_IR_VERSION)
    return made


def readers(model: Model, form: WeightForm) -> list[Reader]:
    """Whose inputs `compress` wants to know: those of the layers that get 4 bits."""
    plans, _ = _plan(to_graph(model), form)
    return list(dict.fromkeys(r for plan in plans if plan.bits == 4 for r in plan.weight.readers))


@dataclass(frozen=True)
class _Plan:
    """How many bits a weight gets; `why`, where 4 were asked for and it isn't 4."""

    weight: LayerWeight
    bits: int
    why: str = ""


@dataclass(frozen=True)
class _Stored:
    """A weight's integers and what they stand for. group: columns per scale, None for all."""

    bits: int
    grid: Grid
    integers: np.ndarray
    group: int | None
    sqnr_db: float
    rounding: str = ""

    @property
    def size(self) -> int:
        """Bytes of integers, scales and zero points."""
        points = 0 if self.grid.low < 0 else self.grid.scale.size * self.bits
        return -(-(self.integers.size * self.bits + points) // 8) + self.grid.scale.nbytes


def _plan(graph: gs.Graph, form: WeightForm) -> tuple[list[_Plan], list[Decision]]:
    found, decisions = layer_weights(graph, form.layers, form.smallest_bytes)
    reasons = {w.name: _not_narrow(w, form) for w in found} if form.bits == 4 else {}
    if any(reason is None for reason in reasons.values()):
        refused = raise_for(graph, _INT4_OPSET, "an int4 weight", ())
        if refused is not None:
            reasons = {name: reason or refused for name, reason in reasons.items()}
    plans = [
        _Plan(w, 8 if form.bits == 8 or reasons[w.name] else 4, reasons.get(w.name) or "")
        for w in found
    ]
    return plans, decisions


def _not_narrow(weight: LayerWeight, form: WeightForm) -> str | None:
    """Why a weight gets 8 bits where 4 are asked for; None when it can have 4."""
    wide = [op for op in weight.ops if op not in form.narrow]
    if wide:
        return f"4 bits are for {' and '.join(form.narrow)}, it belongs to a {wide[0]}"
    if weight.end and not form.narrow_ends:
        return f"it is the {weight.end} layer, whose error nothing averages out"
    if not weight.matrix and "Conv" not in weight.ops:
        return f"shape {list(weight.values.shape)}: blocks need a matrix"
    if weight.matrix and not _fitting(weight, form.groups):
        return f"{weight.columns} inputs don't split into groups of {min(form.groups)}"
    return None


def _fitting(weight: LayerWeight, groups: Sequence[int]) -> list[int]:
    return [group for group in sorted(groups) if weight.columns % group == 0]


def _stored(plan: _Plan, form: WeightForm, moments: Mapping[Reader, np.ndarray]) -> _Stored | str:
    """The weight's integers, in 8 bits where 4 lose too much; a reason where 8 do."""
    rows = plan.weight.rows()
    if plan.bits == 4:
        found = _in_four_bits(plan.weight, rows, form, moments)
        if found.sqnr_db >= _LEAST_DB[4]:
            return found
    grid = fit_grid(rows, 8, symmetric=form.symmetric)
    found = _Stored(8, grid, grid.nearest(rows), None, _sqnr_db(rows, grid))
    if found.sqnr_db < _LEAST_DB[8]:
        return f"int8 would leave {found.sqnr_db:.1f} dB, below {_LEAST_DB[8]:.0f}: stays float"
    if found.size > plan.weight.values.nbytes // 2:
        return f"{plan.weight.columns} inputs per scale: int8 would save less than half"
    return found


def _in_four_bits(
    weight: LayerWeight, rows: np.ndarray, form: WeightForm, moments: Mapping[Reader, np.ndarray]
) -> _Stored:
    hessians = weight.hessian(moments)
    importance = None if hessians is None else hessians.diagonal(axis1=1, axis2=2).mean(axis=0)
    groups = _fitting(weight, form.groups) if weight.matrix else [weight.columns]
    grids = {
        group: fit_grid(rows, 4, symmetric=form.symmetric, group=group, importance=importance)
        for group in groups
    }
    losses = {
        g: noise(rows, grid.values(grid.nearest(rows)), importance) for g, grid in grids.items()
    }
    most = losses[groups[0]] * 10 ** (_GROUP_COST_DB / 10)
    group = max(g for g in groups if losses[g] <= most)
    grid = grids[group]
    shown = group if weight.matrix else None
    quality = _sqnr_db(rows, grid)
    if hessians is None:
        return _Stored(4, grid, grid.nearest(rows), shown, quality)
    found = compensated(rows, hessians, grid)
    gain = [output_db(rows, grid.values(q), hessians) for q in (grid.nearest(rows), found)]
    said = f", GPTQ: the output {gain[0]:.1f} -> {gain[1]:.1f} dB"
    return _Stored(4, grid, found, shown, quality, said)


def _sqnr_db(rows: np.ndarray, grid: Grid) -> float:
    lost = noise(rows, grid.values(grid.nearest(rows)))
    return decibels(noise(rows, np.zeros_like(rows)), lost)


def _place(graph: gs.Graph, weight: LayerWeight, stored: _Stored) -> None:
    """Put the integers behind a DequantizeLinear and let every reader have its output."""
    name, kind = weight.name, f"int{stored.bits}"
    integers = _integers(f"{name}/{kind}", weight.shaped(stored.integers), stored)
    floats = gs.Variable(f"{name}/dequantized", weight.values.dtype, weight.values.shape)
    attrs = {"axis": weight.axis}
    scale, zero = stored.grid.scale[:, 0], stored.grid.zero_point[:, 0]
    if stored.group is not None:
        attrs = {"axis": 1 - weight.axis, "block_size": stored.group}
        scale, zero = (
            part if weight.axis == 0 else part.T
            for part in (stored.grid.scale, stored.grid.zero_point)
        )
    inputs = [integers, gs.Constant(f"{name}/scale", np.ascontiguousarray(scale))]
    if stored.grid.low == 0:
        inputs.append(_integers(f"{name}/zero_point", zero, stored))
    graph.nodes.append(
        gs.Node("DequantizeLinear", f"{name}/DequantizeLinear", attrs, inputs, [floats])
    )
    weight.replace(floats)


def _integers(name: str, values: np.ndarray, stored: _Stored) -> gs.Constant:
    """A weight of the stored type; graphsurgeon can't pack two int4 into a byte itself."""
    signed = "INT" if stored.grid.low < 0 else "UINT"
    kind = onnx.TensorProto.DataType.Value(f"{signed}{stored.bits}")
    typed = np.ascontiguousarray(values).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    return gs.Constant(name, LazyValues(onnx.numpy_helper.from_array(typed, name)))


def _applied(plan: _Plan, stored: _Stored) -> Decision:
    scales = f"groups of {stored.group}" if stored.group else f"{len(stored.grid.scale)} channels"
    if plan.why:
        scales += f"; not int4: {plan.why}"
    elif plan.bits != stored.bits:
        scales += f"; int4 would leave less than {_LEAST_DB[4]:.0f} dB"
    old = plan.weight.values.nbytes
    reason = (
        f"{'uint' if stored.grid.low == 0 else 'int'}{stored.bits}, {stored.sqnr_db:.1f} dB"
        f"{stored.rounding}, {old} -> {stored.size} bytes, {scales}"
    )
    rule = f"int{stored.bits}"
    return Decision("compress", rule, "applied", plan.weight.name, reason, old - stored.size)
