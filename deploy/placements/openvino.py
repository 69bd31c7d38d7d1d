"""Q/DQ where OpenVINO's low precision transformations turn it into integer kernels.

Data and weights of Conv, ConvTranspose, Gemm and MatMul, and both inputs of residual Adds: an Add
whose inputs are integers can become the sum step of the convolution in front of it. Everything else
stays float; what only moves data is carried along as uint8 by OpenVINO itself. Measured on
MobileNetV2 (one core, interleaved, batch 1): quantized Adds 1.62 ms and 24.3 dB, float Adds
1.70 ms and 24.1 dB.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.placement import ActivationQuant, Placement, WeightQuant
from deploy.surgery.graph import constant, label, producer

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def openvino(graph: gs.Graph) -> Placement:
    """The Q/DQ positions for a graph."""
    activations: list[ActivationQuant] = []
    weights: list[WeightQuant] = []
    skipped: list[Decision] = []
    for node in graph.nodes:
        if node.op in _LAYERS:
            refusal = _refusal(node)
            if refusal is not None:
                skipped.append(Decision("quantize", "openvino", "skipped", label(node), refusal))
                continue
            activations.append(ActivationQuant(node, 0, f"input of {node.op}"))
            weights.append(WeightQuant(node, 1, _output_channel_axis(node)))
        elif node.op == "Add":
            refusal = _add_refusal(node)
            if refusal is not None:
                skipped.append(Decision("quantize", "openvino", "skipped", label(node), refusal))
                continue
            activations += [ActivationQuant(node, i, "input of a residual Add") for i in (0, 1)]
    return Placement(tuple(activations), tuple(weights), tuple(skipped))


def _refusal(node: gs.Node) -> str | None:
    """Why a layer stays float; None when it can be quantized."""
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
                return f"{name} = {node.attrs[name]}: OpenVINO runs such a Gemm in float"
    if node.op == "ConvTranspose" and int(node.attrs.get("group", 1)) != 1:
        return "grouped ConvTranspose has no scale per output channel in ONNX"
    return None


def _add_refusal(node: gs.Node) -> str | None:
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


def _output_channel_axis(node: gs.Node) -> int | None:
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1
    if node.op == "Gemm":
        return 0 if node.attrs.get("transB", 0) else 1
    rank = len(node.inputs[1].shape)
    return rank - 1 if rank > 1 else None  # the one axis of a vector is summed over
