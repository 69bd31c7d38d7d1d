"""INT8 beside a float network: its scales by a calibration cache or as ranges, and its layer list.

TensorRT 8.5 to 10.16; the only INT8 a DLA takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.on_device.calibration_cache import cache_scales, cache_with
from deploy.on_device.trt_config import LAYER_TYPES
from deploy.on_device.trt_network import (
    is_float_value,
    layer_inputs,
    layer_kind,
    layer_outputs,
    network_layers,
)
from deploy.on_device.trt_nodes import MADE_UP, layers_of_nodes, types_of_layers
from deploy.on_device.trt_plan import BuildPlan
from deploy.on_device.trt_scales import filled_scales, set_ranges, touched_tensors

# these compute nothing: a type set on them is refused, or is that of their values
_UNTYPED = (
    *("CONSTANT", "CONCATENATION", "SHAPE", "CAST", "FILL", "ASSERTION"),
    *("TRIP_LIMIT", "ITERATOR", "RECURRENCE", "LOOP_OUTPUT"),
    *("CONDITION", "CONDITIONAL_INPUT", "CONDITIONAL_OUTPUT"),
)


@dataclass
class ImplicitInt8:
    """What the network was given. calibrator: to be kept until the engine is built. tensors: those
    of the INT8 layers."""

    calibrator: Any = None
    tensors: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def set_implicit(trt: Any, network: Any, config: Any, plan: BuildPlan) -> ImplicitInt8:
    """Give the network its scales and types; problems name every tensor of an INT8 layer that has
    no scale. Without a layer list any layer may become INT8, so all of them need scales."""
    layers = network_layers(network)
    named = [layer.name for layer in layers if not layer.name.startswith(MADE_UP)]
    kinds = plan.layer_precisions or dict.fromkeys(named, "int8")
    made_of = layers_of_nodes(network, kinds)
    groups = [made_of[name] for name, kind in kinds.items() if kind == "int8"]
    listed = bool(plan.layer_precisions)
    typed = types_of_layers(made_of, kinds) if listed else [(layer, "int8") for layer in layers]
    known = dict(plan.scales or cache_scales(plan.cache))
    needed = touched_tensors(layer for layer, kind in typed if kind == "int8")
    more = filled_scales(trt, network, groups, known, needed)
    found = ImplicitInt8(
        tensors=needed,
        messages=[
            *(f"scale of {name!r}, which the parser made, from its neighbours" for name in more),
            *_unmet(made_of, typed, plan.layer_precisions),
        ],
        problems=[
            f"tensor {name!r} of an INT8 layer has no scale"
            for name in needed
            if name not in known and name not in more
        ],
    )
    if listed and not any(kind == "int8" for _, kind in typed):
        wanted = sum(kind == "int8" for kind in kinds.values())
        found.problems.append(f"none of the {wanted} layers listed in INT8 is one of the network's")
    if listed:
        constraint = "OBEY" if plan.obey else "PREFER"
        config.set_flag(getattr(trt.BuilderFlag, f"{constraint}_PRECISION_CONSTRAINTS"))
        _set_types(trt, network, typed)
    if plan.use_ranges or not plan.cache:
        set_ranges(network, {**known, **more})
    else:
        found.calibrator = cache_calibrator(trt, cache_with(plan.cache, more))
        config.int8_calibrator = found.calibrator
    return found


def cache_calibrator(trt: Any, cache: str) -> Any:
    """A calibrator that has a cache and no samples; `asked` tells that TensorRT wanted samples,
    which means that it didn't take the cache."""

    class _FromCache(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.asked = False
            # TensorRT keeps a pointer into it
            self._text = cache.encode()

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Any) -> None:
            self.asked = True

        def read_calibration_cache(self) -> bytes:
            return self._text

        def write_calibration_cache(self, cache: Any) -> None:
            """TensorRT hands back what it read; there's nothing to keep."""

    return _FromCache()


def _unmet(
    made_of: Mapping[str, list[Any]], typed: list[tuple[Any, str]], kinds: Mapping[str, str]
) -> list[str]:
    """INT8 nodes of the list of which no layer is INT8."""
    int8 = {layer.name for layer, kind in typed if kind == "int8"}
    found = []
    for name, kind in kinds.items():
        if kind == "int8" and name != "*" and not int8.intersection(x.name for x in made_of[name]):
            count = len(made_of[name])
            became = f"{count} layers without weights" if count else "no layer"
            found.append(f"{name!r} isn't INT8 as listed: the parser made {became} of it")
    return found


def _set_types(trt: Any, network: Any, typed: list[tuple[Any, str]]) -> None:
    """Types per layer; INT8 results only where every reader is INT8 as well."""
    int8 = {layer.name for layer, kind in typed if kind == "int8"}
    readers: dict[str, list[str]] = {}
    for layer in network_layers(network):
        for tensor in layer_inputs(layer):
            readers.setdefault(tensor.name, []).append(layer.name)
    for layer, kind in typed:
        if layer_kind(layer) in _UNTYPED or not _computes(layer):
            continue
        layer.precision = getattr(trt.DataType, LAYER_TYPES[kind])
        for i, tensor in enumerate(layer_outputs(layer)):
            read = readers.get(tensor.name, [])
            inside = int8.issuperset(read) and not tensor.is_network_output
            if kind == "int8" and inside:
                layer.set_output_type(i, trt.DataType.INT8)


def _computes(layer: Any) -> bool:
    """Whether a layer works on the network's numbers and not on sizes or indices."""
    tensors = [*layer_inputs(layer)[:1], *layer_outputs(layer)[:1]]
    return all(is_float_value(tensor) for tensor in tensors)
