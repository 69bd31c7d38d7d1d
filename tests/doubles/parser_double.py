"""The ONNX parser: it refuses what the real one of a version refuses, and says so.

Operators without an importer or a plugin, opsets it doesn't know, a zero point that isn't 0
(`operators`); a network without an explicit batch dimension; bytes that are no model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from doubles.layers import Imported
from doubles.operators import newest_opset, unsupported
from doubles.part import Part


class ParserError(Part):
    def _setup(self, text: str, node: int, proto: onnx.NodeProto | None = None) -> None:
        self._text, self._node, self._proto = text, node, proto

    def code(self) -> Any:
        raise NotImplementedError("the double's parser errors have no code")

    def desc(self) -> str:
        return str(self._text)

    def file(self) -> str:
        return "ModelImporter.cpp"

    def func(self) -> str:
        return "parseNode"

    def line(self) -> int:
        return 0

    def node(self) -> int:
        return int(self._node)

    def node_name(self) -> str:
        return self._proto.name if self._proto is not None else ""

    def node_operator(self) -> str:
        return self._proto.op_type if self._proto is not None else ""

    def __str__(self) -> str:
        return f"In node {self._node} (parseNode): {self._text}"


class OnnxParser(Part):
    def _setup(self, network: Any, logger: Any) -> None:
        self._network, self._logger = network, logger
        self._errors: list[Any] = []
        self._flags = 0

    num_errors: Any = property(lambda self: len(self._errors))
    flags: Any = property(lambda self: self._flags, lambda self, v: setattr(self, "_flags", int(v)))

    def set_flag(self, flag: Any) -> None:
        self._flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags >> int(flag) & 1)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def supports_operator(self, op_name: str) -> bool:
        return op_name not in unsupported(self._version) and op_name not in ("If", "Scan")

    def get_used_vc_plugin_libraries(self) -> list[str]:
        return []

    def parse_from_file(self, model: str) -> bool:
        return self._parse(Path(model).read_bytes(), model)

    def parse(self, model: Any, path: str | None = None) -> bool:
        return self._parse(bytes(model), path)

    def _parse(self, content: bytes, path: str | None) -> bool:
        if self._network._layers:
            return self._refuse("the network has layers already; parse into a new one", -1)
        if not self._network._explicit_batch():
            return self._refuse(
                "This version of the ONNX parser only supports TensorRT INetworkDefinitions with an"
                " explicit batch dimension. Please ensure the network was created using the"
                " EXPLICIT_BATCH NetworkDefinitionCreationFlag.",
                -1,
            )
        try:
            model = onnx.load_model_from_string(content)
        except DecodeError:
            return self._refuse("Failed to parse the ONNX model.", -1)
        if path is not None:
            folder = str(Path(path).parent)
            onnx.external_data_helper.load_external_data_for_model(model, folder)
        plugins: dict[str, str] = {}
        if not self._check(model, plugins):
            return False
        self._network._fill(Imported(model, plugins, self._network._major))
        return True

    def _check(self, model: onnx.ModelProto, plugins: dict[str, str]) -> bool:
        """Whether this version imports every node; fills in the layer types of plugin nodes."""
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        newest = newest_opset(self._version)
        if opset > newest:
            return self._refuse(
                f"the model has opset {opset}; this parser knows up to {newest}", -1
            )
        constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        for index, node in enumerate(model.graph.node):
            if node.op_type == "Constant":
                for a in node.attribute:
                    if a.name == "value":
                        constants[node.output[0]] = numpy_helper.to_array(a.t)
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                reason = self._bad_quantization(node, constants)
                if reason:
                    return self._refuse(reason, index, node)
            foreign = node.domain not in ("", "ai.onnx") or node.op_type in unsupported(
                self._version
            )
            if foreign and not self._plugin(node, plugins):
                return self._refuse(
                    f"No importer registered for op: {node.op_type}. Plugin not found, are the "
                    "plugin name, version, and namespace correct?",
                    index,
                    node,
                )
        return True

    def _bad_quantization(self, node: onnx.NodeProto, constants: dict[str, Any]) -> str:
        zero = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        allowed = self._members("OnnxParserFlag").get(
            "ENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA"
        )
        if zero is not None and np.any(zero.astype(np.float32)):
            if allowed is None:
                return "TRT only supports symmetric quantization - zeroPt must be all zeros"
            if not self._flags >> int(allowed) & 1:
                return (
                    "Non-zero zero point is not supported. Please set "
                    "kENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA for the parser."
                )
        scale = constants.get(node.input[1])
        if scale is None:
            return "the scale has to be a constant"
        return "" if np.all(scale > 0) else "scale coefficients must all be positive"

    def _plugin(self, node: onnx.NodeProto, plugins: dict[str, str]) -> bool:
        found = self._registry()._find(node)
        if found is not None:
            plugins[node.op_type] = found
        return found is not None

    def _refuse(self, text: str, index: int, node: onnx.NodeProto | None = None) -> bool:
        self._errors.append(self._make("ParserError", text, index, node))
        self._logger.log(self._value("ILogger.Severity", "ERROR"), f"In node {index}: {text}")
        return False
