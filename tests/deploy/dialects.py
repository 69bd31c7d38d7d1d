"""Every way of writing INT8 down as a target, and each emission read back into the same numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from calibrators.ranges import Affine
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.nvidia.implicit import implicit
from deploy.on_device.calibration_cache import cache_scales
from deploy.quantize import quantize
from deploy.target import Quantization, Target

_INT8 = {"activation_dtype": "int8", "activation_symmetric": True}
# name -> placement, form
_DIALECTS: dict[str, tuple[str, dict[str, object]]] = {
    "openvino": ("openvino", {}),
    "onnxruntime": ("onnxruntime", {"bias_form": "int32"}),
    "tensorrt": ("tensorrt", _INT8),
    "tensorrt_8_5": ("tensorrt", {**_INT8, "weight_form": "fp32", "highest_opset": 17}),
    "tensorrt_implicit": (
        "tensorrt_implicit",
        {**_INT8, "form": "implicit", "highest_opset": 17},
    ),
}
EXPLICIT = [name for name in _DIALECTS if name != "tensorrt_implicit"]
SYMMETRIC = [name for name in _DIALECTS if name.startswith("tensorrt")]


def dialect(name: str, **form: object) -> Target:
    """A target of that dialect; `form` changes its quantization."""
    placement, own = _DIALECTS[name]
    update = {
        "placement": placement,
        "quantization": Quantization.model_validate({**own, **form}),
        "quantized_fusions": (),
    }
    return Target.load("cpu").model_copy(update=update)


@dataclass(frozen=True)
class Numbers:
    """What an emission says: parameters per activation; integers and scales per weight, by the
    name of the float weight."""

    activations: dict[str, Affine]
    weights: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def numbers(name: str, model: Model, ranges: Ranges) -> Numbers:
    """Emit in that dialect, and read back what was written."""
    if name == "tensorrt_implicit":
        scales = cache_scales(implicit(model, ranges, dialect(name)).cache("8.5.2"))
        zero = np.zeros((), np.int8)
        return Numbers({n: Affine(np.asarray(s, "f4"), zero, -128, 127) for n, s in scales.items()})
    return parsed(quantize(model, ranges, dialect(name)))


def parsed(model: Model) -> Numbers:
    """The numbers of a Q/DQ graph."""
    stored = {i.name: numpy_helper.to_array(i) for i in model.proto.graph.initializer}
    activations = {}
    for node in model.proto.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored:
            zero = stored[node.input[2]]
            limits = np.iinfo(zero.dtype)
            scale = stored[node.input[1]]
            activations[node.input[0]] = Affine(scale, zero, limits.min, limits.max)
    return Numbers(activations, _weights(model, stored))


def _weights(
    model: Model, stored: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folded = quantized_constants(model)
    found = {}
    for node in model.proto.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        integers = stored.get(node.input[0], folded.get(node.input[0]))
        if integers is not None and integers.dtype == np.int8:
            name = node.output[0].removesuffix("/dequantized")
            found[name] = (integers, stored[node.input[1]])
    return found


def quantized_constants(model: Model) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes for every QuantizeLinear of a constant, by the output's name."""
    graph = model.proto.graph
    stored = {i.name for i in graph.initializer}
    nodes = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] in stored]
    if not nodes:
        return {}
    needed = {name for node in nodes for name in node.input}
    outputs = [
        helper.make_tensor_value_info(n.output[0], onnx.TensorProto.INT8, None) for n in nodes
    ]
    part = helper.make_graph(
        nodes, "weights", [], outputs, [i for i in graph.initializer if i.name in needed]
    )
    proto = helper.make_model(part, opset_imports=model.proto.opset_import, ir_version=8)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(None, {})
    return {n.output[0]: value for n, value in zip(nodes, values, strict=True)}


def optimized(model: Model) -> list[str]:
    """The operators ONNX Runtime really runs on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        ort.InferenceSession(model.serialized, options, providers=["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(path).graph.node]
