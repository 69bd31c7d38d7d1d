"""What TensorRT's ONNX parser makes of a model: layers and the tensors between them.

As read in onnx-tensorrt (builtin_op_importers.cpp and onnx2trt_utils.cpp of 8.5-GA, 7583da4c, and
their counterparts of 10.1-GA): most nodes become one layer of their name, of two the second gets a
number; a Gemm becomes a product and a sum with a tensor between that no model names; a constant
operand becomes a layer named after its initializer, whose result is "(Unnamed Layer* N)
[Constant]_output", and a shuffle where the ranks differ, which is called ONNXTRT_Broadcast from 10
on. Only layer types and names are modelled; what is computed is the ONNX graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

_KINDS = {
    "ACTIVATION": "Relu LeakyRelu Sigmoid Tanh Elu Clip HardSigmoid Selu Softplus Softsign "
    "ThresholdedRelu Gelu Mish Swish",
    "CONCATENATION": "Concat",
    "CONVOLUTION": "Conv",
    "DECONVOLUTION": "ConvTranspose",
    "DEQUANTIZE": "DequantizeLinear",
    "EINSUM": "Einsum",
    "ELEMENTWISE": "Add Sub Mul Div Max Min Pow Sum And Or Xor Equal Greater Less Mod",
    "FILL": "ConstantOfShape Range RandomNormal RandomUniform",
    "GATHER": "Gather GatherND GatherElements",
    "GRID_SAMPLE": "GridSample",
    "IDENTITY": "Identity Cast Dropout",
    "LRN": "LRN",
    "MATRIX_MULTIPLY": "Gemm MatMul",
    "NORMALIZATION": "LayerNormalization GroupNormalization InstanceNormalization",
    "PARAMETRIC_RELU": "PRelu",
    "POOLING": "MaxPool AveragePool",
    "QUANTIZE": "QuantizeLinear",
    "REDUCE": "GlobalAveragePool GlobalMaxPool ReduceMean ReduceSum ReduceMax ReduceMin",
    "RESIZE": "Resize Upsample",
    "SCALE": "BatchNormalization",
    "SELECT": "Where",
    "SHAPE": "Shape Size",
    "SHUFFLE": "Reshape Flatten Transpose Squeeze Unsqueeze DepthToSpace SpaceToDepth",
    "SLICE": "Slice Split Pad Expand Tile",
    "SOFTMAX": "Softmax LogSoftmax",
    "TOPK": "TopK ArgMax ArgMin",
    "UNARY": "Exp Log Sqrt Abs Neg Erf Not Sin Cos Ceil Floor Round Reciprocal Sign IsInf",
}
KIND_OF = {op: kind for kind, ops in _KINDS.items() for op in ops.split()}
# the inputs that stay tensors where they are constants; of all other nodes constants are weights
_OPERANDS = {"Gemm": (0, 1, 2), "MatMul": (0, 1), "Concat": None, "Gather": (0, 1), "PRelu": (0, 1)}
_OPERANDS.update(dict.fromkeys(_KINDS["ELEMENTWISE"].split()))
_OPERANDS.update({"QuantizeLinear": None, "DequantizeLinear": None, "Where": None, "Einsum": None})
_BROADCAST = set(_KINDS["ELEMENTWISE"].split())


@dataclass
class Value:
    """A tensor of the network. kind: ONNX element type; source: what the ONNX graph calls it."""

    name: str
    kind: int
    shape: tuple[int, ...]
    source: str = ""


@dataclass
class Step:
    """A layer of the network. node: index in the ONNX graph; main: the one that computes."""

    kind: str
    name: str
    node: int
    inputs: list[Value | None]
    outputs: list[Value]
    main: bool = False
    weights: np.ndarray | None = None
    metadata: list[str] = field(default_factory=list)


class Imported:
    """A model as layers. model: with inferred shapes; old: 8.x, which has other names and types."""

    def __init__(self, model: onnx.ModelProto, plugin_ops: dict[str, str], major: int) -> None:
        self.model = onnx.shape_inference.infer_shapes(model)
        self.steps: list[Step] = []
        self._plugins, self._major = plugin_ops, major
        self._names: set[str] = set()
        self._suffix = 0
        graph = self.model.graph
        self._constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.values: dict[str, Value] = {}
        for info in (*graph.value_info, *graph.output, *graph.input):
            if info.name not in self._constants:
                self.values[info.name] = _value(info)
        self.inputs = [self.values[i.name] for i in graph.input if i.name in self.values]
        for index, node in enumerate(graph.node):
            self._node(index, node)
        self.outputs = [self.values[o.name] for o in graph.output]

    def _node(self, index: int, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant":
            value = next(a for a in node.attribute if a.name == "value")
            self._constants[node.output[0]] = numpy_helper.to_array(value.t)
            return
        outputs = [self._of(name) for name in node.output if name]
        operands = self._operands(index, node)
        kind = "CAST" if node.op_type == "Cast" and self._major > 8 else self._kind(node)
        name = node.name or node.output[0]
        if node.op_type == "Gemm":
            self._gemm(index, node, name, operands, outputs[0])
        elif node.op_type == "HardSwish":
            gate = self._made_up(outputs[0], "Activation")
            self._add(index, "ACTIVATION", name, operands[:1], [gate], main=True)
            self._add(index, "ELEMENTWISE", name, [operands[0], gate], outputs)
        elif node.op_type == "Split":
            for number, value in enumerate(outputs):
                self._add(index, kind, name, operands[:1], [value], main=not number)
        else:
            self._add(index, kind, name, operands, outputs, main=True)

    def _kind(self, node: onnx.NodeProto) -> str:
        if node.op_type in self._plugins:
            return self._plugins[node.op_type]
        return KIND_OF.get(node.op_type, "UNARY")

    def _gemm(
        self, index: int, node: onnx.NodeProto, name: str, operands: list[Any], out: Value
    ) -> None:
        if len(operands) < 3:
            self._add(index, "MATRIX_MULTIPLY", name, operands, [out], main=True)
            return
        product = self._made_up(out, "Matrix Multiply")
        self._add(index, "MATRIX_MULTIPLY", name, operands[:2], [product], main=True)
        bias = self._broadcast(index, operands[2], len(out.shape))
        self._add(index, "ELEMENTWISE", "", [product, bias], [out])

    def _operands(self, index: int, node: onnx.NodeProto) -> list[Value | None]:
        """The inputs that are tensors; constant ones among them become layers first."""
        found: list[Value | None] = []
        wanted = _OPERANDS.get(node.op_type, ())
        ranks = [len(self.values[n].shape) for n in node.input if n in self.values]
        for position, name in enumerate(node.input):
            if name in self.values:
                found.append(self.values[name])
            elif name in self._constants and (wanted is None or position in wanted):
                constant = self._constant(index, name)
                if node.op_type in _BROADCAST and ranks:
                    constant = self._broadcast(index, constant, max(ranks))
                found.append(constant)
        return found

    def _constant(self, index: int, name: str) -> Value:
        array = self._constants[name]
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        out = self._made_up(Value("", kind, array.shape, name), "Constant")
        self._add(index, "CONSTANT", name, [], [out], weights=array)
        return out

    def _broadcast(self, index: int, value: Value, rank: int) -> Value:
        if len(value.shape) == rank:
            return value
        shape = (1,) * (rank - len(value.shape)) + tuple(value.shape)
        out = self._made_up(Value("", value.kind, shape, value.source), "Shuffle")
        # named, and for no node, from 10.0 on
        self._add(index, "SHUFFLE", "ONNXTRT_Broadcast" if self._major > 8 else "", [value], [out])
        return out

    def _made_up(self, like: Value, title: str) -> Value:
        """The result of the layer that is added next, which no model names."""
        return Value(f"{self._unnamed(title)}_output", like.kind, tuple(like.shape), like.source)

    def _unnamed(self, title: str) -> str:
        return f"(Unnamed Layer* {len(self.steps)}) [{title}]"

    def _add(
        self,
        index: int,
        kind: str,
        name: str,
        inputs: list[Any],
        outputs: list[Value],
        main: bool = False,
        weights: np.ndarray | None = None,
    ) -> None:
        """name: "" for a layer that the parser doesn't name. Only a layer that is registered for a
        node says so in its metadata."""
        node = self.model.graph.node[index]
        own = node.name or node.output[0]
        about = [f"[ONNX Layer: {own}]"] if name.startswith(own) and kind != "CONSTANT" else []
        title = "ElementWise" if kind == "ELEMENTWISE" else kind.replace("_", " ").title()
        called = self._unique(name) if name else self._unnamed(title)
        self.steps.append(Step(kind, called, index, inputs, outputs, main, weights, about))

    def _unique(self, name: str) -> str:
        """As generateUniqueName: a number behind what was used before."""
        found = name
        while found in self._names:
            found = f"{name}_{self._suffix}"
            self._suffix += 1
        self._names.add(found)
        return found

    def _of(self, name: str) -> Value:
        if name not in self.values:  # shape inference had nothing to say about a plugin's result
            self.values[name] = Value(name, onnx.TensorProto.FLOAT, (), name)
        return self.values[name]


def _value(info: onnx.ValueInfoProto) -> Value:
    tensor = info.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return Value(info.name, tensor.elem_type, shape, info.name)
