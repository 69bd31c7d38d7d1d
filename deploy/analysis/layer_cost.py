"""What every layer of a graph computes and moves, per sample.

Traffic is input + weights + output of every operator, each counted where it is read and where it is
written, caches ignored; a symbolic dimension counts as one. Operators that only relabel a shape, or
compute one, are not layers.

QuantizeLinear and DequantizeLinear belong to their neighbours, as in the kernels vendors build: a
layer that reads through DequantizeLinear reads 8-bit data and weights, a layer whose every reader
is QuantizeLinear writes 8-bit data, and neither costs anything itself. One that can't fold, at a
graph's input or output or beside a reader that wants the wide value, is a layer of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deploy.analysis.flops import node_flops, uncounted
from deploy.artifacts.model import Model
from deploy.surgery.graph import elements, label, producer, to_graph
from deploy.target import QUANTIZED, Precision

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
# relabel a shape: the output is the first input's memory
_RELABEL = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
_FREE = (*_RELABEL, "Shape", "Size", "Constant", "ConstantOfShape", "Range")
_NAMES: dict[str, Precision] = {"float16": "fp16", "bfloat16": "bf16"}
# weighted: their two operands decide in which type they compute, whatever the bias is
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# packed, two or four to a byte
_BITS = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}
_INTEGER = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class LayerCost:
    """One layer: FLOPs, and the bytes it reads and writes in their own types.

    precision: in which it computes as the graph is written.
    floats, float_bytes: elements and bytes of the floating-point part of the traffic; another
    precision changes only that part.
    """

    name: str
    op: str
    precision: Precision
    flops: int
    bytes: int
    floats: int
    float_bytes: int


@dataclass(frozen=True)
class Layers:
    """The layers of a graph in order; `unknown` names those that count for too little, for want of
    a shape or a rule for their FLOPs, or because they have a body (If, Loop, Scan)."""

    costs: tuple[LayerCost, ...]
    unknown: tuple[str, ...]

    @property
    def quantized(self) -> bool:
        """Whether the graph says itself which layers are in 8 bits."""
        return any(layer.precision in QUANTIZED for layer in self.costs)


def layer_costs(model: Model) -> Layers:
    """The cost of every layer of the model."""
    return graph_layers(to_graph(model))


def graph_layers(graph: gs.Graph) -> Layers:
    """The cost of every layer of a linked graph."""
    outputs = {id(tensor) for tensor in graph.outputs}
    shapes: set[int] = set()
    costs: list[LayerCost] = []
    unknown: list[str] = []
    for node in graph.nodes:
        if _computes_a_shape(node, shapes):
            shapes.update(id(t) for t in node.outputs)
        elif node.op not in _FREE and not _folds(node, outputs):
            values = [t for t in (*node.inputs, *node.outputs) if not t.is_empty()]
            hidden = uncounted(node) or list(node.subgraphs())
            if hidden or any(_counts_too_little(t) for t in values):
                unknown.append(label(node))
            costs.append(_cost(node, outputs))
    return Layers(tuple(costs), tuple(unknown))


def _counts_too_little(tensor: gs.Tensor) -> bool:
    """Whether a size that isn't known, other than the batch in front, counts as one."""
    if elements(tensor) is None:
        return True
    return any(not isinstance(size, int) for size in tensor.shape[1:])


def stored_bytes(count: int, found: object) -> int:
    """What so many elements of a tensor's `dtype` take, packed where they are below a byte; 0 where
    the type isn't known."""
    dtype = _as_dtype(found)
    return 0 if dtype is None else -(-count * _BITS.get(str(dtype), 8 * dtype.itemsize) // 8)


def _cost(node: gs.Node, outputs: set[int]) -> LayerCost:
    total = floats = float_bytes = 0
    for tensor, dtype in _traffic(node, outputs):
        count = _elements(node, tensor)
        size = stored_bytes(count, dtype)
        total += size
        if _is_float(dtype):
            floats += count
            float_bytes += size
    # a conversion left standing moves data and computes nothing worth a name
    flops = 0 if node.op in (_Q, _DQ) else node_flops(node)
    return LayerCost(label(node), node.op, _precision(node), flops, total, floats, float_bytes)


def _traffic(node: gs.Node, outputs: set[int]) -> Iterator[tuple[gs.Tensor, np.dtype | None]]:
    """Every value a layer reads or writes, with the type it has in memory."""
    for tensor in node.inputs:
        if not tensor.is_empty():
            yield tensor, _read_as(tensor)
    for tensor in node.outputs:
        if not tensor.is_empty():
            yield tensor, _written_as(tensor, outputs)


def _read_as(tensor: gs.Tensor) -> np.dtype | None:
    """The type in memory: the integers behind DequantizeLinear, else the tensor's own."""
    found: gs.Tensor = tensor
    while (source := producer(found)) is not None:
        if source.op == _DQ:
            return _dtype(source.inputs[0])
        if source.op not in _RELABEL:
            break
        found = source.inputs[0]
    return _dtype(tensor)


def _written_as(tensor: gs.Tensor, outputs: set[int]) -> np.dtype | None:
    """The integers of QuantizeLinear where nobody reads anything else, else the tensor's own."""
    types = _quantized_types(tensor, outputs)
    return types[0] if types and None not in types else _dtype(tensor)


def _quantized_types(tensor: gs.Tensor, outputs: set[int]) -> list[np.dtype | None]:
    """What each reader makes of the tensor; None for a reader of the wide value."""
    types: list[np.dtype | None] = [None] if id(tensor) in outputs else []
    for reader in tensor.outputs:
        if reader.op == _Q:
            types.append(_dtype(reader.outputs[0]))
        elif reader.op in _RELABEL and reader.inputs[0] is tensor:
            types += _quantized_types(reader.outputs[0], outputs)
        else:
            types.append(None)
    return types


def _folds(node: gs.Node, outputs: set[int]) -> bool:
    """Whether a conversion is part of the layer before (Q) or of those behind (DQ)."""
    if node.op == _DQ:
        return id(node.outputs[0]) not in outputs
    if node.op != _Q:
        return False
    found = node.inputs[0]
    while (source := producer(found)) is not None and source.op in _RELABEL:
        found = source.inputs[0]
    if isinstance(found, gs.Constant):
        return True
    computed = source is not None and source.op not in (_Q, _DQ)
    return computed and None not in _quantized_types(found, outputs)


def _precision(node: gs.Node) -> Precision:
    """The type a layer computes in: int8 or fp8 when all of its data is 8-bit."""
    if node.op in _INTEGER:
        return "int8"
    operands = node.inputs[:2] if node.op in _PRODUCTS else node.inputs
    computed = [t for t in operands if node.op in _PRODUCTS or not isinstance(t, gs.Constant)]
    data = [t for t in computed if _is_float(_dtype(t))]
    read = [_read_as(t) for t in data]
    if node.op not in (_Q, _DQ) and read and not any(_is_float(dtype) for dtype in read):
        return "fp8" if any(str(dtype).startswith("float8") for dtype in read) else "int8"
    wide = next((str(dtype) for dtype in read if _is_float(dtype)), "float32")
    return _NAMES.get(wide, "fp32")


def _computes_a_shape(node: gs.Node, shapes: set[int]) -> bool:
    """Whether a node works on a shape: Shape itself, or integers made of nothing but shapes."""
    if node.op in ("Shape", "Size"):
        return True
    computed = [t for t in node.inputs if not t.is_empty() and not isinstance(t, gs.Constant)]
    if not computed or any(id(t) not in shapes for t in computed):
        return False
    return all(len(t.shape or ()) <= 1 and not _is_float(_dtype(t)) for t in node.outputs)


def _elements(node: gs.Node, tensor: gs.Tensor) -> int:
    """The elements of a value that are really read; of an embedding table only the rows taken."""
    count = elements(tensor) or 0
    table = node.op == "Gather" and tensor is node.inputs[0] and isinstance(tensor, gs.Constant)
    return min(count, elements(node.outputs[0]) or 0) if table else count


def _dtype(tensor: gs.Tensor) -> np.dtype | None:
    """The element type; graphsurgeon keeps those NumPy lacks (bfloat16, float8) as ONNX numbers."""
    return _as_dtype(tensor.dtype)


def _as_dtype(found: object) -> np.dtype | None:
    if isinstance(found, int):
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(found))
    # sequences and optionals have no element of their own
    return np.dtype(found) if isinstance(found, np.dtype | type) else None


def _is_float(dtype: np.dtype | None) -> bool:
    """Also those from outside NumPy, whose kind is V: bfloat16."""
    return dtype is not None and (dtype.kind == "f" or str(dtype) in _NAMES)
