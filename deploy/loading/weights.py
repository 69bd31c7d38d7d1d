"""Weights that no engine could be right with: empty, NaN, or infinite where they multiply."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from deploy.artifacts.model import graphs
from deploy.errors import ModelError

# operator -> the inputs that are multiplied with activations
_MULTIPLIED = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2, 3, 4),
}
# attributes in which NaN is a sign, not a number: in a tree ensemble it ends a set of members, and
# stands for the threshold of a node that asks for membership
_SIGNS = ("membership_values", "nodes_splits")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def check_weights(proto: onnx.ModelProto, name: str) -> None:
    """ModelError for the first weight that is empty, not finite, or shorter than its shape."""
    multiplied = {
        node.input[i]: node.op_type
        for graph in graphs(proto.graph)
        for node in graph.node
        for i in _MULTIPLIED.get(node.op_type, ())
        if i < len(node.input)
    }
    for weight, tensor in _weights(proto):
        values = _values(tensor, weight, name)
        operator = multiplied.get(weight)
        if operator and values.size == 0:
            raise ModelError(
                f"{name}: weight {weight!r} of a {operator} has shape {list(values.shape)}, "
                "no elements; the export lost it, export the model again"
            )
        if tensor.data_type not in _FLOATS or values.size == 0:
            continue
        # infinity is legitimate in an attention mask, but not as a factor
        bad = ~np.isfinite(values) if operator else np.isnan(values)
        if bad.any():
            raise ModelError(
                f"{name}: weight {weight!r} holds {int(bad.sum())} NaN or Inf values; the "
                "training diverged or the file is damaged, export it again"
            )


def _weights(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Initializers and Constant nodes, those of subgraphs too, by the name that nodes read."""
    for graph in graphs(proto.graph):
        for tensor in graph.initializer:
            yield tensor.name, tensor
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR and attribute.name not in _SIGNS:
                    yield next(iter(node.output), attribute.name), attribute.t


def _values(tensor: onnx.TensorProto, weight: str, name: str) -> np.ndarray:
    if tensor.data_type not in onnx.TensorProto.DataType.values():
        raise ModelError(
            f"{name}: weight {weight!r} has element type {tensor.data_type}, which ONNX doesn't "
            "know; the file is damaged"
        )
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{name}: weight {weight!r} doesn't fill its shape {list(tensor.dims)} ({error}); "
            "the file is truncated or damaged"
        ) from None
