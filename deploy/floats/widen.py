"""The float32 twin of a float16 or float64 model: the same weights, computed in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from deploy.artifacts.model import Model, copy_proto, graphs

_OTHER = (onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
_FLOAT = onnx.TensorProto.FLOAT


def in_float32(model: Model) -> Model:
    """The model with every float16 and float64 value, weight and cast made float32.

    Itself when it has none. What rounds values to float16 on purpose, inside a float32 model with
    float32 inputs and outputs (a Cast there and back), is left as it is.
    """
    ports = [*model.proto.graph.input, *model.proto.graph.output]
    if not any(v.type.tensor_type.elem_type in _OTHER for v in ports):
        return model
    proto = copy_proto(model.proto)
    for graph in graphs(proto.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in _OTHER:
                value.type.tensor_type.elem_type = _FLOAT
        for tensor in (*graph.initializer, *_attributes(graph)):
            if tensor.data_type in _OTHER:
                wide = numpy_helper.to_array(tensor).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i in _OTHER:
                    attribute.i = _FLOAT
    return model.derive(proto, ())


def _attributes(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
