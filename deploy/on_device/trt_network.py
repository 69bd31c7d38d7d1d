"""An ONNX file as TensorRT's network, and its tensors and layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.on_device.device_error import DeviceError
from deploy.on_device.trt_library import (
    chooses_types,
    last_errors,
    made,
    version_text,
)
from deploy.on_device.trt_plan import BuildPlan

_FLOATS = ("FLOAT", "HALF", "BF16")


def read_network(trt: Any, log: Any, builder: Any, plan: BuildPlan) -> tuple[Any, Any]:
    """The network and its parser, which owns the weights: keep it until the engine is built.

    DeviceError in NVIDIA's words when the parser refuses the model.
    """
    network = made(log, "network", builder.create_network, _network_flags(trt, plan))
    parser = made(log, "ONNX parser", trt.OnnxParser, network, log)
    if not parser.parse(plan.model):
        found = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
        reason = "; ".join(found) or last_errors(log, "without a word")
        raise DeviceError(
            f"{version_text(trt)} can't read the model: {reason}; export that operator "
            "differently, or have it rewritten for this version"
        )
    return network, parser


def _network_flags(trt: Any, plan: BuildPlan) -> int:
    kinds = trt.NetworkDefinitionCreationFlag
    flags = 0
    if hasattr(kinds, "EXPLICIT_BATCH"):
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    if plan.typing == "strong" and chooses_types(trt):
        flags |= 1 << int(kinds.STRONGLY_TYPED)
    return flags


def _parser_error(error: Any) -> str:
    """NVIDIA's text with the node; older parsers know its number alone."""
    where = f"node {error.node()}"
    if hasattr(error, "node_name"):
        where += f" {error.node_name()!r} ({error.node_operator()})"
    return "{}: {}".format(where, " ".join(str(error.desc()).split()))


def network_layers(network: Any) -> list[Any]:
    """All layers, in the order they were added."""
    return [network.get_layer(i) for i in range(network.num_layers)]


def network_inputs(network: Any) -> list[Any]:
    """All input tensors."""
    return [network.get_input(i) for i in range(network.num_inputs)]


def layer_inputs(layer: Any) -> list[Any]:
    """What a layer reads, without optional inputs that aren't given."""
    tensors = (layer.get_input(i) for i in range(layer.num_inputs))
    return [tensor for tensor in tensors if tensor is not None]


def layer_outputs(layer: Any) -> list[Any]:
    """What a layer writes."""
    return [layer.get_output(i) for i in range(layer.num_outputs)]


def layer_kind(layer: Any) -> str:
    """The layer's type by its name: "CONVOLUTION"."""
    return str(layer.type.name)


def is_float_value(tensor: Any) -> bool:
    """Whether a tensor holds the network's numbers: float, and not sizes of something."""
    return tensor.dtype.name in _FLOATS and not tensor.is_shape_tensor


def is_free(tensor: Any) -> bool:
    """Whether a tensor has a dimension that only the run decides."""
    return any(size < 0 for size in tensor.shape)


def float_values(tensors: list[Any]) -> Iterator[Any]:
    """Those of the tensors that hold the network's numbers."""
    return (tensor for tensor in tensors if is_float_value(tensor))
