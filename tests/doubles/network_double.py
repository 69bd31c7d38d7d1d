"""INetworkDefinition, its layers and its tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from doubles.layers import Imported, Step, Value
from doubles.part import Part

_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.DOUBLE: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
    TensorProto.FLOAT8E4M3FN: "FP8",
}


def type_name(kind: int, major: int) -> str:
    """DataType's member for an ONNX element type; 8.x has no INT64 and uses INT32."""
    name = _TYPES.get(kind, "FLOAT")
    return "INT32" if name == "INT64" and major < 10 else name


class ITensor(Part):
    broadcast_across_batch = False
    location: Any = property(lambda self: self._value("TensorLocation", "DEVICE"))
    allowed_formats = (1 << 32) - 1

    def _setup(self, network: Any, value: Value) -> None:
        self._network, self._value_of = network, value
        self._range: tuple[float, float] | None = None
        self._name, self._type = value.name, type_name(value.kind, network._major)

    name: Any = property(lambda self: self._name, lambda self, name: setattr(self, "_name", name))
    shape: Any = property(
        lambda self: self._make("Dims", list(self._value_of.shape)),
        lambda self, shape: setattr(self._value_of, "shape", tuple(shape)),
    )
    dtype: Any = property(
        lambda self: self._value("DataType", self._type),
        lambda self, kind: setattr(self, "_type", kind.name),
    )
    dynamic_range: Any = property(
        lambda self: self._range, lambda self, pair: setattr(self, "_range", tuple(pair))
    )
    is_network_input: Any = property(lambda self: self._value_of in self._network._graph.inputs)
    is_network_output: Any = property(lambda self: self._value_of in self._network._graph.outputs)
    is_execution_tensor: Any = property(lambda self: not self._is_shape())
    is_shape_tensor: Any = property(lambda self: self._is_shape())

    def _is_shape(self) -> bool:
        whole = self._type in ("INT32", "INT64")
        return (
            whole
            and len(self._value_of.shape) <= 1
            and self._value_of not in self._network._graph.inputs
        )

    def set_dynamic_range(self, min: float, max: float) -> bool:
        if not np.isfinite([min, max]).all() or min > max:
            self._network._log("ERROR", f"ITensor::setDynamicRange: [{min}, {max}] is no range")
            return False
        self._range = (float(min), float(max))
        return True

    def reset_dynamic_range(self) -> None:
        self._range = None


class ILayer(Part):
    def _setup(self, network: Any, step: Step) -> None:
        self._network, self._step = network, step
        self._precision = ""
        self._output_types: dict[int, str] = {}
        self._name = step.name
        self._metadata = "\x1e".join(step.metadata)

    name: Any = property(lambda self: self._name, lambda self, name: setattr(self, "_name", name))
    type: Any = property(lambda self: self._value("LayerType", self._network._kind(self._step)))
    num_inputs: Any = property(lambda self: len(self._step.inputs))
    num_outputs: Any = property(lambda self: len(self._step.outputs))
    precision_is_set: Any = property(lambda self: bool(self._precision))
    metadata: Any = property(
        lambda self: self._metadata, lambda self, text: setattr(self, "_metadata", text)
    )

    def get_input(self, index: int) -> Any:
        found = self._step.inputs[index] if 0 <= index < len(self._step.inputs) else None
        return None if found is None else self._network._tensor(found)

    def get_output(self, index: int) -> Any:
        inside = 0 <= index < len(self._step.outputs)
        return self._network._tensor(self._step.outputs[index]) if inside else None

    @property
    def precision(self) -> Any:
        return self._value("DataType", self._precision or "FLOAT")

    @precision.setter
    def precision(self, kind: Any) -> None:
        if self._network._may_choose("ILayer::setPrecision", self._name):
            self._precision = kind.name

    def reset_precision(self) -> None:
        self._precision = ""

    def set_output_type(self, index: int, dtype: Any) -> None:
        if self._network._may_choose("ILayer::setOutputType", self._name):
            self._output_types[index] = dtype.name

    def get_output_type(self, index: int) -> Any:
        default = self._network._tensor(self._step.outputs[index])._type
        return self._value("DataType", self._output_types.get(index, default))

    def output_type_is_set(self, index: int) -> bool:
        return index in self._output_types

    def reset_output_type(self, index: int) -> None:
        self._output_types.pop(index, None)


class IConstantLayer(ILayer):
    """What an ILayer of that type turns into by assigning its __class__."""

    @property
    def weights(self) -> Any:
        if self._step.weights is None:
            raise TypeError(f"layer {self._name!r} is {self._step.kind}, no constant")
        return self._step.weights

    shape: Any = property(lambda self: self._make("Dims", list(self._step.weights.shape)))


class INetworkDefinition(Part):
    error_recorder = None

    def _setup(self, builder: Any, flags: int) -> None:
        self._builder, self._flags = builder, flags
        self._major = builder._version_numbers()[0]
        self._log = builder._log
        self._graph: Any = Imported(onnx.ModelProto(), {}, self._major)
        self._layers: list[Any] = []
        self._tensors: dict[int, Any] = {}

    name: Any = property(lambda self: "Unnamed Network 0", lambda self, name: None)
    builder: Any = property(lambda self: self._builder)
    flags: Any = property(lambda self: self._flags)
    num_layers: Any = property(lambda self: len(self._layers))
    num_inputs: Any = property(lambda self: len(self._graph.inputs))
    num_outputs: Any = property(lambda self: len(self._graph.outputs))
    has_implicit_batch_dimension: Any = property(lambda self: not self._explicit_batch())

    def _explicit_batch(self) -> bool:
        return self._major >= 10 or bool(self._flags & 1)

    def _strongly_typed(self) -> bool:
        # without the flag too from 11 on, whose networks are all strongly typed
        flag = self._members("NetworkDefinitionCreationFlag").get("STRONGLY_TYPED")
        return self._major >= 11 or (flag is not None and bool(self._flags >> int(flag) & 1))

    def _may_choose(self, call: str, layer: str) -> bool:
        if self._strongly_typed():
            self._log(
                "ERROR",
                f"{call}: Error Code 3: API Usage Error (strongly typed network; layer {layer})",
            )
        return not self._strongly_typed()

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags >> int(flag) & 1)

    def _fill(self, graph: Imported) -> None:
        self._graph = graph
        self._layers = [self._make("ILayer", self, step) for step in graph.steps]

    def _kind(self, step: Step) -> str:
        known = self._members("LayerType")
        return step.kind if step.kind in known else "ELEMENTWISE"

    def _tensor(self, value: Value) -> Any:
        """The one ITensor of a value."""
        if id(value) not in self._tensors:
            self._tensors[id(value)] = self._make("ITensor", self, value)
        return self._tensors[id(value)]

    def get_layer(self, index: int) -> Any:
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def __getitem__(self, arg0: int) -> Any:
        if not -len(self._layers) <= arg0 < len(self._layers):
            raise IndexError("list index out of range")
        return self._layers[arg0]

    def __len__(self) -> int:
        return len(self._layers)

    def get_input(self, index: int) -> Any:
        return self._tensor(self._graph.inputs[index]) if index < len(self._graph.inputs) else None

    def get_output(self, index: int) -> Any:
        return (
            self._tensor(self._graph.outputs[index]) if index < len(self._graph.outputs) else None
        )
