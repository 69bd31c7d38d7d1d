"""A Q/DQ graph that doesn't round: what it computes, without the steps that hide small errors and
enlarge others.

    QuantizeLinear    =>  clip(x / scale + zero_point, ends of the type)      in float32
    DequantizeLinear  =>  (q - zero_point) * scale

What moves integers in between moves floats then.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy.artifacts.model import Model, copy_proto
from deploy.floats.float8 import FLOAT8

_ENDS = {
    onnx.TensorProto.INT8: (-128.0, 127.0),
    onnx.TensorProto.UINT8: (0.0, 255.0),
    FLOAT8: (-448.0, 448.0),
}
_STORED = (*_ENDS, onnx.TensorProto.INT32)


def unrounded(quantized: Model) -> Model | None:
    """The same graph, its quantized values kept in float32; None where a scale is computed, or a
    type is none of ours."""
    maker = _Maker(quantized)
    return quantized.derive(maker.proto, ()) if maker.known else None


class _Maker:
    def __init__(self, quantized: Model) -> None:
        self.proto = copy_proto(quantized.proto)
        graph = self.proto.graph
        self.stored = {w.name: w for w in graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.known = True
        pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
        parameters = {name for node in pairs for name in node.input[1:]}
        if any(name and name not in self.stored for name in parameters):
            self.known = False
            return
        for node in graph.node:
            if node.op_type == "QuantizeLinear":
                self.scaled(node)
            elif node.op_type == "DequantizeLinear":
                self.unscaled(node)
            else:
                self.nodes.append(node)
        read = {node.input[0] for node in pairs if node.op_type == "DequantizeLinear"}
        for name, weight in self.stored.items():
            # also what pads integers
            if weight.data_type in _ENDS or (name in read and weight.data_type in _STORED):
                floats = numpy_helper.to_array(weight).astype(np.float32)
                weight.CopyFrom(numpy_helper.from_array(floats, name))
        made = onnx.GraphProto()
        made.node.extend(self.nodes)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(made.node)

    def scaled(self, node: onnx.NodeProto) -> None:
        """Integers, but for the rounding."""
        kind = onnx.TensorProto.UINT8
        if len(node.input) > 2 and node.input[2]:
            kind = self.stored[node.input[2]].data_type
        if kind not in _ENDS:
            self.known = False
            return
        low, high = (self.constant(node, n, v) for n, v in zip("lh", _ENDS[kind], strict=True))
        scale, zero = self.parameters(node)
        out = node.output[0]
        self.add("Div", [node.input[0], scale], f"{out}//scaled", node.name)
        self.add("Add", [f"{out}//scaled", zero], f"{out}//moved")
        self.add("Clip", [f"{out}//moved", low, high], out)

    def unscaled(self, node: onnx.NodeProto) -> None:
        """The real values again."""
        scale, zero = self.parameters(node)
        out = node.output[0]
        self.add("Sub", [node.input[0], zero], f"{out}//moved")
        self.add("Mul", [f"{out}//moved", scale], out, node.name)

    def add(self, operator: str, inputs: list[str], output: str, name: str = "") -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], name))

    def parameters(self, node: onnx.NodeProto) -> tuple[str, str]:
        """Scale and zero point in float32, of a shape that broadcasts along the axis."""
        scale = numpy_helper.to_array(self.stored[node.input[1]]).astype(np.float32)
        given = self.stored.get(node.input[2]) if len(node.input) > 2 else None
        zero = np.zeros((), np.float32)
        if given is not None:
            zero = numpy_helper.to_array(given).astype(np.float32)
        return self.constant(node, "s", self.along(node, scale)), self.constant(
            node, "z", self.along(node, zero)
        )

    def along(self, node: onnx.NodeProto, values: np.ndarray) -> np.ndarray:
        if values.size == 1:
            return values.reshape(())
        weight = self.stored.get(node.input[0]) or self.source(node)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if weight is None or values.ndim != 1:  # blocks
            self.known = False
            return values
        shape = [1] * len(weight.dims)
        shape[axis] = -1
        return values.reshape(shape)

    def source(self, node: onnx.NodeProto) -> onnx.TensorProto | None:
        """The weight in front of a pair."""
        for other in self.proto.graph.node:
            if other.op_type == "QuantizeLinear" and other.output[0] == node.input[0]:
                return self.stored.get(other.input[0])
        return None

    def constant(self, node: onnx.NodeProto, what: str, value: float | np.ndarray) -> str:
        name = f"{node.output[0]}//{what}"
        array = np.asarray(value, np.float32)
        self.proto.graph.initializer.append(numpy_helper.from_array(array, name))
        return name
