"""The weights of a Q/DQ graph as it stores them: integers, or floats in front of a Q/DQ pair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy.artifacts.model import Model
from deploy.weights.grid import Grid

_OPS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """The constant `name` and the grid its layers see it on.

    values: int8 (or another integer), or float32 in front of a QuantizeLinear. scale: float32[C] or
    [1]; zero_point: int32 of that size; axis: where C is.
    """

    name: str
    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int

    def grid(self, rows: int) -> Grid:
        """The grid of that many output channels.

        Symmetric integers reach what the largest of them does: fewer bits are stored in int8 too.
        """
        scale, zero = (
            np.broadcast_to(part.reshape(-1, 1), (rows, 1))
            for part in (self.scale, self.zero_point)
        )
        if zero.any() or self.values.dtype == np.uint8:
            ends = np.iinfo(np.uint8 if self.values.dtype == np.uint8 else np.int8)
            return Grid(scale, zero, int(ends.min), int(ends.max))
        shape = [-1 if i == self.axis else 1 for i in range(self.values.ndim)]
        integers = self.values
        if integers.dtype == np.float32:
            integers = np.rint(integers / self.scale.reshape(shape if self.scale.size > 1 else 1))
        top = int(np.abs(integers.astype(np.int32)).max(initial=1))
        return Grid(scale, zero, -top, top)


def stored_weights(model: Model) -> dict[frozenset[str], StoredWeight]:
    """The weight of every set of layers (their outputs) that share one."""
    graph = model.proto.graph
    makers = {output: node for node in graph.node for output in node.output}
    weights = {w.name: w for w in graph.initializer}
    layers: Mapping[str, set[str]] = defaultdict(set)
    ends: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        maker = makers.get(node.input[1]) if node.op_type in _OPS else None
        if maker is None or maker.op_type != "DequantizeLinear":
            continue
        source = makers.get(maker.input[0])
        first = source if source is not None and source.op_type == "QuantizeLinear" else maker
        name = first.input[0]
        if all(part in weights for part in (name, *maker.input[1:]) if part):
            layers[name].add(node.output[0])
            ends[name] = maker
    return {
        frozenset(outputs): _stored(name, ends[name], weights) for name, outputs in layers.items()
    }


def _stored(
    name: str, maker: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]
) -> StoredWeight:
    values, scale, *zero = (
        numpy_helper.to_array(weights[part]) for part in (name, *maker.input[1:]) if part
    )
    axis = next((helper.get_attribute_value(a) for a in maker.attribute if a.name == "axis"), 1)
    point = zero[0].astype(np.int32) if zero else np.zeros(scale.shape, np.int32)
    return StoredWeight(name, values, scale.reshape(-1), point.reshape(-1), axis % values.ndim)
