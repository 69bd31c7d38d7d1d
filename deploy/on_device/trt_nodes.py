"""Which of TensorRT's layers an ONNX node became, and the type each of them is to have.

The layer list names ONNX nodes. The parser makes one layer of most, of that name, and several of
some: of a Gemm a product of that name and a sum, with a tensor between that no model names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from deploy.on_device.trt_network import (
    layer_inputs,
    layer_kind,
    layer_outputs,
    network_layers,
)

# these give on what they read, or a constant
MOVES = ("SHUFFLE", "IDENTITY", "SLICE", "SQUEEZE", "UNSQUEEZE", "CAST")
WEIGHTED_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED")
# how the parser calls tensors between the layers of one node
MADE_UP = ("(Unnamed Layer*", "ONNXTRT_")
_NUMBERED = re.compile(r"(.+)_\d+")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


def layers_of_nodes(network: Any, names: Iterable[str]) -> dict[str, list[Any]]:
    """Per name of the list the layers its ONNX node became; "*" has all the others."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    layers = network_layers(network)
    node_of = [_node_of(layer, found) for layer in layers]
    named = {layer.name: layer for layer in layers}
    for i, layer in enumerate(layers):
        if node_of[i] is None:
            node_of[i] = _beside(layer, named, found)
    for one, other in _inner_links(layers):
        # both ends of a made-up tensor are of the same node
        for near, far in ((one, other), (other, one)):
            if node_of[far] is None:
                node_of[far] = node_of[near]
    found["*"] = []
    for i, layer in enumerate(layers):
        name = node_of[i]
        found["*" if name is None else name].append(layer)
    return found


def _node_of(layer: Any, names: Mapping[str, Any]) -> str | None:
    """The node a layer belongs to by its name, or by what 8.6 and later note beside it."""
    if layer.name in names:
        return str(layer.name)
    noted = [name for name in _NODE.findall(getattr(layer, "metadata", "")) if name in names]
    return noted[0] if len(noted) == 1 else None


def _beside(layer: Any, named: Mapping[str, Any], names: Mapping[str, Any]) -> str | None:
    """The node of which a layer is one of several alike, as the slices of a Split are: the first
    has its name, the others a number behind it, and 8.5 notes nothing else (onnx-tensorrt 7583da4c,
    registerLayer). They read the same values; sizes that are free come in beside these."""
    found = _NUMBERED.fullmatch(layer.name)
    first = named.get(found.group(1)) if found and found.group(1) in names else None
    if first is None or layer_kind(first) != layer_kind(layer):
        return None
    read = [[tensor.name for tensor in layer_inputs(one)[:1]] for one in (first, layer)]
    return str(first.name) if read[0] == read[1] else None


def _inner_links(layers: list[Any]) -> list[tuple[int, int]]:
    """Pairs of layers joined by a made-up tensor, forward and then backward, so that one pass
    reaches a whole chain. A constant is nobody's: its tensor may have several readers."""
    writer = {
        tensor.name: i
        for i, layer in enumerate(layers)
        if layer_kind(layer) != "CONSTANT"
        for tensor in layer_outputs(layer)
        if tensor.name.startswith(MADE_UP)
    }
    forward = [
        (writer[tensor.name], i)
        for i, layer in enumerate(layers)
        for tensor in layer_inputs(layer)
        if tensor.name in writer
    ]
    return [*forward, *reversed(forward)]


def types_of_layers(
    made_of: Mapping[str, list[Any]], kinds: Mapping[str, str]
) -> list[tuple[Any, str]]:
    """Every layer with its type of the list; layers that only move within a node have none.

    Of an INT8 node that became several layers those with weights are INT8 and the others of the
    rest's type: INT8 for a Gemm's sum would round its bias to 8 bits, and INT8 within an
    activation would need a scale that nobody knows.
    """
    rest = kinds.get("*", "fp32")
    found = []
    for name, group in made_of.items():
        parts = [layer for layer in group if layer_kind(layer) not in (*MOVES, "CONSTANT")]
        several = name != "*" and len(parts) > 1
        for layer in parts if several else group:
            kind = kinds.get(name, rest)
            if several and layer_kind(layer) not in WEIGHTED_LAYERS:
                kind = rest
            found.append((layer, kind))
    return found
