"""Q/DQ around everything ONNX Runtime has integer kernels for on the CPU.

ONNX Runtime replaces DequantizeLinear -> operator -> QuantizeLinear by one integer operator, so
results are quantized as well as inputs: QLinearConv, QLinearAdd, QLinearMul, QLinearConcat, the
average pools, LeakyRelu, Sigmoid. Gemm and MatMul (QGemm, MatMulIntegerToFloat) write floats, and
their results stay so. What only moves data works on the integers when Q and DQ have one scale. A
Relu or Clip in front of a QuantizeLinear disappears in it, as the range begins (and ends) where it
clips. Its CPU kernels want uint8 activations and int32 biases: the target says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.placement import ActivationQuant, Placement, SharedScale, WeightQuant
from deploy.quantizable import (
    LAYERS,
    merged,
    output_channel_axis,
    readers,
    result,
    stays_float,
    why_float,
    why_float_sum,
)
from deploy.surgery.graph import is_output
from deploy.surgery.movement import data_inputs

# one kernel reads and writes integers, each side with its own scale
_BOTH_SIDES = ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Concat")
# DequantizeLinear and QuantizeLinear around these are dropped when their scales are equal
_MOVES = (
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather"),
    *("DepthToSpace", "Expand", "Tile", "MaxPool", "Resize"),
)
_SAME = "what only moves values needs one scale on both sides"


def onnxruntime(graph: gs.Graph) -> Placement:
    """The Q/DQ positions for a graph."""
    plan = _Plan({id(node) for node in graph.nodes})
    for node in graph.nodes:
        if node.op in LAYERS:
            plan.layer(node)
        elif node.op in ("Add", "Mul"):
            plan.arithmetic(node)
        elif node.op in (*_BOTH_SIDES, *_MOVES):
            plan.carrier(node)
    return Placement(
        tuple(plan.activations), tuple(plan.weights), tuple(plan.skipped), tuple(plan.shared)
    )


@dataclass
class _Plan:
    """Walks the graph in order; `integers`: names of the tensors that are quantized by then."""

    nodes: set[int]
    activations: list[ActivationQuant] = field(default_factory=list)
    weights: list[WeightQuant] = field(default_factory=list)
    skipped: list[Decision] = field(default_factory=list)
    shared: list[SharedScale] = field(default_factory=list)
    integers: set[str] = field(default_factory=set)

    def layer(self, node: gs.Node) -> None:
        refusal = why_float(node) or _no_kernel(node)
        results = _results(node) if node.op == "Conv" else []
        refusal = refusal or _why_between(node, results) or self._unwritable(results)
        if refusal is not None:
            self.skipped.append(stays_float("onnxruntime", node, refusal))
            return
        self._place(node, [0], results)
        self.weights.append(WeightQuant(node, 1, output_channel_axis(node)))

    def arithmetic(self, node: gs.Node) -> None:
        results = _results(node)
        refusal = why_float_sum(node) if node.op == "Add" else _why_float_product(node)
        if refusal is None and not any(t.name in self.integers for t in node.inputs):
            refusal = "no input is quantized: a QuantizeLinear for each would cost more"
        refusal = refusal or _why_between(node, results) or self._unwritable(results)
        if refusal is not None:
            self.skipped.append(stays_float("onnxruntime", node, refusal))
            return
        self._place(node, [0, 1], results)

    def carrier(self, node: gs.Node) -> None:
        """Stays in integers between integers; elsewhere there is nothing to win, or to tell."""
        moved = data_inputs(node)
        # an activation in between would need another scale than the moved values have
        results = node.outputs if node.op in _MOVES else _results(node)
        known = all(tensor.name in self.integers for tensor in moved)
        if not known or self._unwritable(results) or _interpolates(node):
            return
        self._place(node, range(len(moved)), results)
        if node.op in _MOVES:
            names = (*(t.name for t in moved), *(t.name for t in node.outputs))
            self.shared.append(SharedScale(names, _SAME))

    def _place(self, node: gs.Node, inputs: Iterable[int], results: Iterable[gs.Tensor]) -> None:
        self.activations += [ActivationQuant(node, i, f"input of {node.op}") for i in inputs]
        for tensor in results:
            self.integers.add(tensor.name)
            self.activations += [
                ActivationQuant(reader, index, f"result of {node.op}", node)
                for reader, index in readers(tensor)
            ]

    def _unwritable(self, results: Iterable[gs.Tensor]) -> str | None:
        """Why a result can't be integers for everybody who reads it."""
        for tensor in results:
            if tensor.dtype != np.float32:
                return f"its result is {tensor.dtype}; Q/DQ goes around float32 only"
            if is_output(tensor) or not tensor.outputs:
                return "its result is a model output, which stays float"
            if any(id(reader) not in self.nodes for reader in tensor.outputs):
                return "its result is read inside If, Loop or Scan, which stay float"
        return None


def _results(node: gs.Node) -> list[gs.Tensor]:
    """What the layer writes: behind the Relu or Clip that a QuantizeLinear makes superfluous."""
    return [result(node)]


def _why_between(node: gs.Node, results: list[gs.Tensor]) -> str | None:
    """Why no QuantizeLinear can follow the layer itself; None when one can."""
    if results and any(between.op == "BatchNormalization" for between in merged(node)):
        return "a BatchNormalization follows; name fold_affine in the target's fusions"
    return None


def _no_kernel(node: gs.Node) -> str | None:
    if node.op == "ConvTranspose":
        return "ONNX Runtime has no integer ConvTranspose on the CPU"
    if node.op == "MatMul" and len(node.inputs[1].shape) != 2:
        return f"weights of rank {len(node.inputs[1].shape)}: its integer MatMul takes matrices"
    return None


def _why_float_product(node: gs.Node) -> str | None:
    """Why a Mul stays float; None for two feature maps, one of which may be a gate per channel."""
    left, right = node.inputs
    if left.dtype != np.float32:
        return f"multiplies {left.dtype}; Q/DQ goes around float32 only"
    if isinstance(left, gs.Constant) or isinstance(right, gs.Constant):
        return "multiplies by a constant"
    ranks = [len(t.shape or ()) for t in (left, right)]
    if ranks[0] != ranks[1] or ranks[0] < 4:
        return "not a product of feature maps"
    return None


def _interpolates(node: gs.Node) -> bool:
    """Whether a Resize computes new values: its integer kernel rounds them."""
    return bool(node.op == "Resize" and node.attrs.get("mode", "nearest") != "nearest")
