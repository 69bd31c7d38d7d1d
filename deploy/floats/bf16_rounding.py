"""A bfloat16 graph as a machine without bfloat16 arithmetic can run it: float32, rounded as often.

    y = Conv(x, w)   in bfloat16   =>   y = Cast(32)(Cast(bf16)(Conv(x, w)))   in float32

Products are summed in float32 and each result is rounded, as tensor cores do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx.shape_inference
from onnx import helper, numpy_helper

from deploy.artifacts.model import Model, copy_proto

_HALF, _WIDE = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT


def with_bf16_rounding(model: Model) -> Model:
    """The model with float32 in place of every bfloat16, and a rounding behind each node that
    computed in it; itself where nothing is bfloat16."""
    types = _types(model.proto)
    narrow = {name for name, kind in types.items() if kind == _HALF}
    if not narrow:
        return model
    proto = copy_proto(model.proto)
    graph = proto.graph
    for tensor in graph.initializer:
        if tensor.data_type == _HALF:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == _HALF:
            value.type.tensor_type.elem_type = _WIDE
    made = onnx.GraphProto()
    for node in graph.node:
        made.node.extend(_rounded(node, narrow))
    del graph.node[:]
    graph.node.extend(made.node)
    return model.derive(proto, model.decisions)


def _rounded(node: onnx.NodeProto, narrow: set[str]) -> Iterator[onnx.NodeProto]:
    """The node in float32, then a Cast there and back for each of its bfloat16 results."""
    if node.op_type == "Cast":
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == _HALF:
                attribute.i = _WIDE
    wanted = [name for name in node.output if name in narrow]
    node.output[:] = [f"{n}/unrounded" if n in narrow else n for n in node.output]
    yield node
    for name in wanted:
        low = f"{name}/rounded"
        yield helper.make_node("Cast", [f"{name}/unrounded"], [low], f"{low}/Cast", to=_HALF)
        yield helper.make_node("Cast", [low], [name], f"{name}/widened", to=_WIDE)


def _types(proto: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value that is known."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    return {v.name: v.type.tensor_type.elem_type for v in values}
