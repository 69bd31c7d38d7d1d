"""A scale for every tensor of an INT8 layer, those of the parser's own making included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from deploy.on_device.trt_network import (
    float_values,
    is_float_value,
    layer_inputs,
    layer_kind,
    layer_outputs,
    network_inputs,
    network_layers,
)
from deploy.on_device.trt_nodes import MADE_UP, MOVES, WEIGHTED_LAYERS

STEPS = 127.0  # a scale times that is the largest value


def touched_tensors(layers: Iterable[Any]) -> list[str]:
    """The names of the float tensors these layers read and write, each once."""
    found = [
        tensor.name
        for layer in layers
        for tensor in float_values([*layer_inputs(layer), *layer_outputs(layer)])
    ]
    return list(dict.fromkeys(found))


def filled_scales(
    trt: Any,
    network: Any,
    groups: Iterable[list[Any]],
    known: Mapping[str, float],
    needed: Iterable[str],
) -> dict[str, float]:
    """Scales that no cache can name, of the needed tensors: a constant has its largest value, what
    only moves keeps its scale, and a product before its sum takes the sum's.

    groups: the layers of each INT8 node.
    """
    wanted = set(needed)
    more = {
        layer_outputs(layer)[0].name: _constant_scale(trt, layer)
        for layer in network_layers(network)
        if layer_kind(layer) == "CONSTANT"
        and is_float_value(layer_outputs(layer)[0])
        and layer_outputs(layer)[0].name in wanted - set(known)
    }
    for group in groups:
        while True:
            scales = {**known, **more}
            found = dict(_moved(group, scales)) or dict(_before_sum(group, scales))
            if not found:
                break
            more.update(found)
    return {name: scale for name, scale in more.items() if name in wanted}


def _moved(group: list[Any], known: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for layer in group:
        if layer_kind(layer) in MOVES:
            ends = [layer_inputs(layer)[0], layer_outputs(layer)[0]]
            for given, other in (ends, ends[::-1]):
                if given.name in known and other.name not in known and is_float_value(other):
                    yield other.name, known[given.name]


def _before_sum(group: list[Any], known: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    written = [tensor for layer in group for tensor in layer_outputs(layer)]
    result = next(
        (known[tensor.name] for tensor in reversed(written) if tensor.name in known), None
    )
    for layer in group:
        if layer_kind(layer) in WEIGHTED_LAYERS and result is not None:
            for tensor in float_values(layer_outputs(layer)):
                if tensor.name.startswith(MADE_UP) and tensor.name not in known:
                    yield tensor.name, result


def _constant_scale(trt: Any, layer: Any) -> float:
    """The scale that holds a constant's largest value."""
    # the network gives every layer as an ILayer; this is how its own attributes are reached
    layer.__class__ = trt.IConstantLayer
    largest = float(np.max(np.abs(np.asarray(layer.weights, np.float32)), initial=0.0))
    return (largest or 1.0) / STEPS


def set_ranges(network: Any, scales: Mapping[str, float]) -> None:
    """Every tensor's scale as its dynamic range."""
    tensors = network_inputs(network)
    tensors += [tensor for layer in network_layers(network) for tensor in layer_outputs(layer)]
    for tensor in tensors:
        if tensor.name in scales:
            reach = STEPS * scales[tensor.name]
            tensor.set_dynamic_range(-reach, reach)
