"""Where layers of integer weights keep their biases in a Q/DQ graph, and how to add to them.

A Conv, ConvTranspose or Gemm takes a bias itself; a MatMul has the constant of the Add behind it. A
bias is float32, or int32 behind a DequantizeLinear of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy.artifacts.model import Model, copy_proto

_FOLDS_BIAS = ("Conv", "ConvTranspose", "Gemm")
_THROUGH = ("DequantizeLinear", "QuantizeLinear", "Reshape", "Transpose", "Identity", "Cast")
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class LayerBias:
    """output: the layer's result behind its bias; axis: its channels, 1 or the last.

    index: the input of that node which holds the bias. name: what it reads there, "" for nothing.
    step: float64[C] or [], what one step of an int32 bias is worth; None for a float one.
    gain: what a Gemm multiplies its bias with.
    """

    output: str
    axis: int
    index: int
    name: str = ""
    step: np.ndarray | None = field(default=None, compare=False)
    gain: float = 1.0

    def rounded(self, change: np.ndarray) -> np.ndarray:
        """float64[C]: the change of the layer's output that the bias can hold."""
        if self.step is None:
            return change
        step = self.step * self.gain
        return np.asarray(np.rint(change / step) * step)


def layer_biases(model: Model) -> tuple[list[LayerBias], dict[str, str]]:
    """The bias of every layer whose weights are integers, and per output why there is none."""
    found: list[LayerBias] = []
    refused: dict[str, str] = {}
    known = _Known(model.proto.graph)
    for node in model.proto.graph.node:
        if node.op_type not in (*_FOLDS_BIAS, "MatMul") or node.domain not in ("", "ai.onnx"):
            continue
        if not known.integer_weights(node.input[1]):
            continue
        own = known.folded(node) if node.op_type in _FOLDS_BIAS else known.added(node)
        if isinstance(own, str):
            refused[node.output[0]] = own
        else:
            found.append(own)
    return found, refused


def with_biases(model: Model, changes: Sequence[tuple[LayerBias, np.ndarray]]) -> onnx.ModelProto:
    """The graph with each change, float64[C], added to its layer's output through its bias."""
    proto = copy_proto(model.proto)
    nodes = {output: node for node in proto.graph.node for output in node.output}
    values = {w.name: w for w in proto.graph.initializer}
    taken = {*nodes, *values}
    for bias, change in changes:
        name = f"{bias.output}/corrected_bias"
        while name in taken:
            name += "_"
        taken.add(name)
        added = change / bias.gain
        if bias.step is not None:
            steps = np.rint(added / bias.step)
            _add_integers(proto.graph, nodes[bias.name], values, steps, name)
        else:
            old = numpy_helper.to_array(values[bias.name]) if bias.name else np.zeros(1, "f4")
            new = np.asarray(old.astype(np.float64) + added, old.dtype)
            # a constant of its own: two layers may share the old one
            proto.graph.initializer.append(numpy_helper.from_array(new, name))
        node = nodes[bias.output]
        node.input.extend([""] * (bias.index + 1 - len(node.input)))
        node.input[bias.index] = name
    _drop_unread(proto.graph)
    return proto


class _Known:
    """Who makes and who reads what."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.makers = {output: node for node in graph.node for output in node.output}
        self.weights = {w.name: w for w in graph.initializer}
        self.readers: Mapping[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)

    def integer_weights(self, name: str) -> bool:
        """Whether a weight comes from a constant through DequantizeLinear."""
        dequantized = False
        while name in self.makers and self.makers[name].op_type in _THROUGH:
            dequantized = dequantized or self.makers[name].op_type == "DequantizeLinear"
            name = self.makers[name].input[0]
        return dequantized and name in self.weights

    def folded(self, node: onnx.NodeProto) -> LayerBias | str:
        name = node.input[2] if len(node.input) > 2 else ""
        gain = 1.0
        if node.op_type == "Gemm":
            gain = next((a.f for a in node.attribute if a.name == "beta"), 1.0)
        if gain == 0:
            return "its beta is 0, which leaves its bias out"
        step = self._step(name)
        if name and name not in self.weights and step is None:
            return f"its bias {name!r} is computed"
        return LayerBias(node.output[0], 1, 2, name, step, gain)

    def added(self, node: onnx.NodeProto) -> LayerBias | str:
        adds = self.readers[node.output[0]]
        if len(adds) != 1 or adds[0].op_type != "Add":
            return "it has no bias, and no Add behind it takes one"
        names = list(adds[0].input)
        held = [i for i, name in enumerate(names) if name in self.weights]
        if not held:
            return f"what is added to it, {names}, is computed"
        return LayerBias(adds[0].output[0], -1, held[0], names[held[0]])

    def _step(self, name: str) -> np.ndarray | None:
        """The scale of an int32 constant behind a DequantizeLinear; None for anything else."""
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        parts = [self.weights.get(part) for part in maker.input if part]
        if any(part is None for part in parts):
            return None
        integers, scale = (numpy_helper.to_array(part) for part in parts[:2] if part is not None)
        return scale.astype(np.float64) if integers.dtype == np.int32 else None


def _add_integers(
    graph: onnx.GraphProto,
    old: onnx.NodeProto,
    values: Mapping[str, onnx.TensorProto],
    steps: np.ndarray,
    name: str,
) -> None:
    """A DequantizeLinear of the same scales, whose int32 hold the sum."""
    integers = numpy_helper.to_array(values[old.input[0]]).astype(np.float64)
    total = (integers + steps).clip(_INT32.min, _INT32.max).astype(np.int32)
    graph.initializer.append(numpy_helper.from_array(total, f"{name}/int32"))
    new = helper.make_node(
        "DequantizeLinear", [f"{name}/int32", *old.input[1:]], [name], f"{name}/DequantizeLinear"
    )
    new.attribute.extend(old.attribute)
    # it reads constants alone, so it may stand first
    graph.node.insert(0, new)


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Take out the constants, and dequantized biases, that nobody reads any more."""
    read = {name for node in graph.node for name in _mentioned(node)}
    read |= {output.name for output in graph.output}
    for index, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "DequantizeLinear" and node.output[0] not in read:
            del graph.node[index]
    read = {name for node in graph.node for name in _mentioned(node)}
    read |= {output.name for output in graph.output}
    for index, weight in reversed(list(enumerate(graph.initializer))):
        if weight.name not in read:
            del graph.initializer[index]


def _mentioned(node: onnx.NodeProto) -> set[str]:
    """Every name a node or its bodies read."""
    found = set(node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            found |= {value.name for value in body.output}
            for inner in body.node:
                found |= _mentioned(inner)
    return found
