"""Float16, bfloat16 and float64 written as float32: the same weights, computed in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from deploy.artifacts.model import Model, copy_proto, graphs

_BFLOAT16 = onnx.TensorProto.BFLOAT16
_OTHER = {onnx.TensorProto.FLOAT16, _BFLOAT16, onnx.TensorProto.DOUBLE}
_FLOAT = onnx.TensorProto.FLOAT
# what operators call the type they give or compute in
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type", "softmax_precision")


def in_float32(model: Model) -> Model:
    """The model with every value, weight and cast of another float type made float32.

    Itself when it has none. What rounds values to float16 on purpose, inside a float32 model with
    float32 inputs and outputs (a Cast there and back), is left as it is.
    """
    graph = model.proto.graph
    ports = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    # nothing here computes in bfloat16, so weights in it are stored so and no more
    stored = {w.data_type for w in graph.initializer} & {_BFLOAT16}
    if not (ports | stored) & _OTHER:
        return model
    proto = copy_proto(model.proto)
    retype(proto, set[int](_OTHER))
    return model.derive(proto, ())


def retype(proto: onnx.ModelProto, kinds: set[int]) -> None:
    """Make every value, weight and attribute of those element types float32, in place."""
    for graph in graphs(proto.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in kinds:
                value.type.tensor_type.elem_type = _FLOAT
    for tensor in stored_tensors(proto):
        if tensor.data_type in kinds:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for node in _nodes(proto):
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in kinds:
                attribute.i = _FLOAT


def stored_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every array the file holds: weights, and what operators have as attributes."""
    for graph in graphs(proto.graph):
        yield from graph.initializer
    for node in _nodes(proto):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs(proto.graph):
        yield from graph.node
    for function in proto.functions:
        yield from function.node
