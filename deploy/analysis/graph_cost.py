"""How much a graph computes and moves, per sample.

Conventions: a multiply and an add count as two FLOPs; traffic is input + weights + output of every
operator in their own types, caches ignored; a symbolic dimension counts as one; operators that
only relabel a shape cost nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Model
from deploy.graph import elements, to_graph

_ELEMENTWISE = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Erf", "Tanh", "Softmax", "Clip"),
    *("Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Gelu", "Mish"),
    *("BatchNormalization", "LayerNormalization", "QuantizeLinear", "DequantizeLinear"),
)
_FREE = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Constant")


@dataclass(frozen=True)
class GraphCost:
    """Totals of a graph; operators: how often each occurs."""

    nodes: int
    operators: dict[str, int]
    parameters: int
    weight_bytes: int
    flops: int
    bytes: int


def graph_cost(model: Model) -> GraphCost:
    """Nodes, parameters, FLOPs and bytes of a model."""
    graph = to_graph(model)
    weights = {t.name: t for n in graph.nodes for t in n.inputs if isinstance(t, gs.Constant)}
    return GraphCost(
        nodes=len(graph.nodes),
        operators=dict(sorted(Counter(node.op for node in graph.nodes).items())),
        parameters=sum(int(np.prod(t.shape)) for t in weights.values()),
        weight_bytes=sum(_bytes(t) for t in weights.values()),
        flops=sum(node_flops(node) for node in graph.nodes),
        bytes=sum(node_bytes(node) for node in graph.nodes),
    )


def node_flops(node: gs.Node) -> int:
    """FLOPs of one node; 0 for what only moves data or whose shapes are unknown."""
    if not node.outputs:
        return 0
    out = elements(node.outputs[0]) or 0
    if node.op == "Conv":
        return 2 * out * int(np.prod(node.inputs[1].shape[1:]))
    if node.op == "ConvTranspose":
        data = elements(node.inputs[0]) or 0
        return 2 * data * int(np.prod(node.inputs[1].shape[1:]))
    if node.op in ("Gemm", "MatMul"):
        shape = node.inputs[0].shape or [0]
        inner = shape[0] if node.op == "Gemm" and node.attrs.get("transA", 0) else shape[-1]
        return int(2 * out * (inner if isinstance(inner, int) else 1))
    if node.op in ("GlobalAveragePool", "AveragePool", "ReduceMean", "MaxPool"):
        return elements(node.inputs[0]) or 0
    return out if node.op in _ELEMENTWISE else 0


def node_bytes(node: gs.Node) -> int:
    """Bytes one node reads and writes."""
    if node.op in _FREE:
        return 0
    return sum(_bytes(t) for t in (*node.inputs, *node.outputs))


def _bytes(tensor: gs.Tensor) -> int:
    if tensor.is_empty() or tensor.dtype is None:
        return 0
    return int((elements(tensor) or 0) * np.dtype(tensor.dtype).itemsize)
