"""FLOPs of one node: a multiply and an add count as two, and biases as nothing.

Elementwise operators and normalizations count one per output element, reductions one per input
element, pooling one per element of every window. Resize counts two per neighbour that an output
element weighs, as one sum: 2 (linear) or 4 (cubic) along every axis it resizes, so 8 FLOPs per
element for a bilinear image and 32 for a bicubic one; antialiasing, which weighs more, isn't
counted. What only moves data counts nothing, Resize to the nearest included. Nor does what has no
rule here: `uncounted` says so.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, elements

# the input that holds the weights; their first axis is the output channels
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "DeformConv": 1, "QLinearConv": 3}
_PRODUCTS = ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul")
_RECURRENT = ("LSTM", "GRU", "RNN")
_WINDOWS = ("AveragePool", "MaxPool", "LpPool")
_ELEMENTWISE = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Neg", "Abs", "Min", "Max", "Mean", "Sum"),
    *("Sqrt", "Exp", "Log", "Erf", "Reciprocal", "Sin", "Cos", "Tan", "Tanh", "Sign"),
    *("Floor", "Ceil", "Round", "Clip", "Softmax", "LogSoftmax"),
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid"),
    *("HardSigmoid", "HardSwish", "Swish", "Gelu", "Mish", "Softplus", "Softsign"),
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization"),
    *("InstanceNormalization", "LpNormalization", "LRN"),
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh"),
    *("Shrink", "IsInf", "IsNaN"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not"),
    *("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"),
}
# they multiply and add, as much as no shape here tells
_UNCOUNTED = {
    *("AffineGrid", "Det", "DFT", "GridSample", "MaxRoiPool", "MelWeightMatrix", "RoiAlign"),
    "STFT",
}
# of other domains (onnxruntime's, a plugin's), and no arithmetic
_MOVED_ELSEWHERE = ("ChannelShuffle", "ExpandDims", "GatherND", "Pad", "Trilu", "Unique")
# how many neighbours Resize weighs along one axis
_NEIGHBOURS = {"linear": 2, "cubic": 4}
_REDUCTIONS = ("GlobalAveragePool", "GlobalMaxPool", "ArgMax", "ArgMin", "CumSum", "TopK")


def node_flops(node: gs.Node) -> int:
    """FLOPs of one node; 0 for what only moves data or whose shapes are unknown."""
    if not node.outputs:
        return 0
    out = elements(node.outputs[0]) or 0
    if node.op in _CONVOLUTIONS:
        return 2 * out * _size(node.inputs[_CONVOLUTIONS[node.op]].shape, 1)
    if node.op == "ConvTranspose":
        return 2 * (elements(node.inputs[0]) or 0) * _size(node.inputs[1].shape, 1)
    if node.op in _PRODUCTS:
        return 2 * out * _inner(node)
    if node.op in _RECURRENT:
        return _recurrent(node)
    if node.op == "Einsum":
        return _einsum(node)
    if node.op == "Attention" and not node.domain:
        return _attention(node)
    if node.op in _WINDOWS:
        return out * int(math.prod(node.attrs.get("kernel_shape", ())))
    if node.op == "Resize":
        return _resize(node, out)
    if node.op in _REDUCTIONS or node.op.startswith("Reduce"):
        return elements(node.inputs[0]) or 0
    return out if node.op in _ELEMENTWISE else 0


def uncounted(node: gs.Node) -> bool:
    """Whether the operator computes what `node_flops` has no rule for, and counts as nothing."""
    if node.domain in (None, "", "ai.onnx"):
        return node.op in _UNCOUNTED
    # of the same name elsewhere, it takes other inputs
    if node.op == "Attention":
        return True
    return node.op not in _MOVED_ELSEWHERE and node_flops(node) == 0


def _size(shape: tuple[int | str, ...] | None, start: int = 0) -> int:
    """The product of the dimensions from `start` on; free ones count as 1, no shape as 0."""
    if shape is None:
        return 0
    return math.prod(d for d in shape[start:] if isinstance(d, int))


def _inner(node: gs.Node) -> int:
    """The length of the axis a product sums over."""
    shape = node.inputs[0].shape or [0]
    inner = shape[0] if node.op == "Gemm" and node.attrs.get("transA", 0) else shape[-1]
    return inner if isinstance(inner, int) else 1


def _resize(node: gs.Node, out: int) -> int:
    """A weighted sum for every element of the output; the scales say which axes it runs along, or
    else the sizes before and after."""
    neighbours = _NEIGHBOURS.get(node.attrs.get("mode", "nearest"))
    if neighbours is None:
        return 0
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scales is not None and scales.size:
        axes = int((scales != 1).sum())
    else:
        pairs = zip(node.inputs[0].shape or (), node.outputs[0].shape or (), strict=False)
        axes = sum(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    return 2 * out * neighbours**axes if axes else 0


def _recurrent(node: gs.Node) -> int:
    """x: [steps, batch, inputs]; the weights W and R of all gates and directions, every step."""
    steps = _size(node.inputs[0].shape) // max(1, _size(node.inputs[0].shape, 2))
    return 2 * steps * sum(_size(t.shape) for t in node.inputs[1:3])


def _attention(node: gs.Node) -> int:
    """The products of queries with keys and of what they give with values, for every query.

    Query, key and value: [batch, heads, length, size] or [batch, length, heads * size]; the keys
    of earlier calls, input 4, are [batch, heads, length, size].
    """
    past = [*node.inputs, *[None] * 5][4]
    keys = [node.inputs[1], *([] if past is None or past.is_empty() else [past])]
    length = sum(_size(tensor.shape[-2:-1]) for tensor in keys if tensor.shape is not None)
    sizes = elements(node.inputs[0]), elements(node.outputs[0])
    return 2 * length * sum(size or 0 for size in sizes)


def _einsum(node: gs.Node) -> int:
    """Two FLOPs for every combination of the indices of two operands; one term: no product."""
    terms = str(node.attrs.get("equation", "")).replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, node.inputs, strict=False):
        # an ellipsis stands for as many axes as the term names too few
        rest = len(tensor.shape or ()) - len(term.replace("...", ""))
        axes = term.replace("...", "".join(chr(0x3B1 + i) for i in range(max(0, rest))))
        for axis, dim in zip(axes, tensor.shape or (), strict=False):
            sizes[axis] = max(sizes.get(axis, 1), dim if isinstance(dim, int) else 1)
    return 2 * int(np.prod(list(sizes.values()), dtype=np.int64)) if len(terms) > 1 else 0
