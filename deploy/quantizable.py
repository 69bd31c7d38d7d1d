"""Which layers can run in integers at all, and why not: what all vendors' placements share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.placement import SharedScale
from deploy.surgery.graph import constant, is_output, label, producer
from deploy.surgery.movement import MONOTONE, data_inputs, moves

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def why_float(node: gs.Node) -> str | None:
    """Why a layer with weights stays float; None when it can be quantized."""
    weight = constant(node.inputs[1])
    if isinstance(node.inputs[0], gs.Constant):
        return "its data input is a constant"
    source = producer(node.inputs[1])
    if source is not None and source.op == "DequantizeLinear":
        return "its weights are quantized already"
    if weight is None:
        return "both inputs are computed at run time (attention scores): no weights to quantize"
    if weight.dtype != np.float32:
        return f"its weights are {weight.dtype}; Q/DQ goes around float32 only"
    if node.op == "Gemm":
        unusual = {"alpha": 1.0, "beta": 1.0, "transA": 0}
        for name, usual in unusual.items():
            if node.attrs.get(name, usual) != usual:
                return f"{name} = {node.attrs[name]}: there is no integer kernel for such a Gemm"
    if node.op == "ConvTranspose" and int(node.attrs.get("group", 1)) != 1:
        return "grouped ConvTranspose has no scale per output channel in ONNX"
    return None


def why_float_sum(node: gs.Node) -> str | None:
    """Why an Add stays float; None for a residual Add of two maps of the same shape."""
    left, right = node.inputs
    if left.dtype != np.float32:
        return f"adds {left.dtype}; Q/DQ goes around float32 only"
    if isinstance(left, gs.Constant) or isinstance(right, gs.Constant):
        return "adds a constant"
    if left is right:
        return "adds a value to itself"
    dims = [[d for d in (t.shape or ()) if isinstance(d, int)] for t in (left, right)]
    if len(left.shape or ()) != len(right.shape or ()) or dims[0] != dims[1] or not dims[0]:
        return "its inputs have different or unknown shapes, so it isn't a residual Add"
    if len(left.shape) < 4:
        return "not a sum of feature maps (a transformer's residual stream is kept in float)"
    return None


def output_channel_axis(node: gs.Node) -> int | None:
    """The axis of a layer's weights that holds its output channels; None for a vector, whose one
    axis is summed over."""
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1
    if node.op == "Gemm":
        return 0 if node.attrs.get("transB", 0) else 1
    rank = len(node.inputs[1].shape)
    return rank - 1 if rank > 1 else None


def stays_float(vendor: str, node: gs.Node, reason: str) -> Decision:
    """The Decision for a layer that stays float."""
    return Decision("quantize", vendor, "skipped", label(node), reason)


def only_reader(tensor: gs.Tensor) -> gs.Node | None:
    """The node that alone reads a value; None when several do, or the model gives it out."""
    return tensor.outputs[0] if len(tensor.outputs) == 1 and not is_output(tensor) else None


def merged(node: gs.Node) -> list[gs.Node]:
    """What vendors compute inside the layer: BatchNormalization and then a Relu or Clip, each the
    only reader of what is before it. Values in between have no range of their own."""
    found: list[gs.Node] = []
    reader = only_reader(node.outputs[0])
    while reader is not None and reader.op == "BatchNormalization":
        found.append(reader)
        reader = only_reader(reader.outputs[0])
    if reader is not None and reader.op in ("Relu", "Clip"):
        found.append(reader)
    return found


def result(node: gs.Node) -> gs.Tensor:
    """What the layer gives, behind what is merged into it."""
    return [node, *merged(node)][-1].outputs[0]


def readers(tensor: gs.Tensor) -> list[tuple[gs.Node, int]]:
    """Every place where a value is read: node and input."""
    nodes = {id(node): node for node in tensor.outputs}.values()
    return [(node, i) for node in nodes for i, value in enumerate(node.inputs) if value is tensor]


def same_values(
    nodes: Iterable[gs.Node], quantized: Iterable[str], reason: str
) -> tuple[SharedScale, ...]:
    """One group per value that reaches two or more of the `quantized` tensors by being moved only:
    reshaped, sliced, concatenated, pooled by maximum.

    nodes: in topological order. With one scale Q/DQ of any of them can be done on the value itself,
    and what moves it works on integers.
    """
    wanted = dict.fromkeys(quantized)
    origins: dict[str, dict[str, None]] = {}
    for node in nodes:
        if moves(node, MONOTONE):
            moved = [t.name for t in data_inputs(node) if not isinstance(t, gs.Constant)]
            found = {o: None for name in moved for o in origins.get(name, {name: None})}
            origins.update({out.name: found for out in node.outputs})
    groups: dict[str, list[str]] = {}
    for name in wanted:
        for origin in origins.get(name, {name: None}):
            groups.setdefault(origin, []).append(name)
    return tuple(SharedScale(tuple(g), reason) for g in groups.values() if len(g) > 1)
