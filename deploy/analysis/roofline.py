"""Which roof every layer hits on a device, and the time that follows: max(FLOPs/peak, bytes/rate).

A float graph is predicted at every precision the device has: its floating-point values then have
that precision's size. A graph with Q/DQ says itself what is INT8: there the precision is that of
the float layers, and "int8" or "fp8" means the graph as it is written, its float layers in the
type that the target has beside it. Where a device has no rate for a
layer's type it computes the layer in the nearest one it has.

Predictions are a bound: no cache, no overlap between layers, no overhead per layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deploy.analysis.device import Device
from deploy.analysis.layer_cost import LayerCost, Layers
from deploy.target import QUANTIZED, Precision, Roofline

_BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
_WIDER: Mapping[Precision, tuple[Precision, ...]] = {
    "fp32": ("fp32", "fp16", "bf16", "int8"),
    "fp16": ("fp16", "fp32", "bf16", "int8"),
    "bf16": ("bf16", "fp16", "fp32", "int8"),
    "int8": ("int8", "fp16", "bf16", "fp32"),
    "fp8": ("fp8", "fp16", "bf16", "fp32"),
}


@dataclass(frozen=True)
class Predicted:
    """One layer on one device at one precision."""

    precision: Precision
    bytes: int
    compute_s: float
    memory_s: float

    @property
    def seconds(self) -> float:
        return max(self.compute_s, self.memory_s)

    @property
    def bound(self) -> Literal["compute", "memory"]:
        """The roof that binds; memory where both do."""
        return "compute" if self.compute_s > self.memory_s else "memory"


def layer_precision(layers: Layers, layer: LayerCost, wanted: Precision | None) -> Precision:
    """The type a layer computes in when the model is run at `wanted`; None is as written."""
    as_written = wanted is None or (layers.quantized and wanted in QUANTIZED)
    return layer.precision if as_written or layer.precision in QUANTIZED else wanted or "fp32"


def layer_bytes(layers: Layers, layer: LayerCost, wanted: Precision | None) -> int:
    """A layer's traffic when the model's float values have the size of `wanted`."""
    if wanted is None or (layers.quantized and wanted in QUANTIZED):
        return layer.bytes
    return layer.bytes - layer.float_bytes + layer.floats * _BYTES[wanted]


def predict(layers: Layers, roofline: Roofline, wanted: Precision | None) -> list[Predicted]:
    """Every layer of a graph on a device."""
    found = []
    for layer in layers.costs:
        precision = layer_precision(layers, layer, wanted)
        moved = layer_bytes(layers, layer, wanted)
        compute = layer.flops / rate(roofline, precision)
        memory = moved / roofline.bandwidth_bytes_per_s
        found.append(Predicted(precision, moved, compute, memory))
    return found


def _on(layers: Layers, device: Device, precision: Precision) -> list[Predicted]:
    """Every layer on a device; of a graph in 8 bits the rest is in the target's float type."""
    as_written = layers.quantized and precision in QUANTIZED
    return predict(layers, device.roofline, device.rest(precision) if as_written else precision)


def rate(roofline: Roofline, precision: Precision) -> float:
    """The device's FLOP/s at that precision, or at the nearest it has."""
    return next(roofline.peak_flops[p] for p in _WIDER[precision] if p in roofline.peak_flops)


def own_precision(layers: Layers) -> Precision:
    """What a graph is as it is written: int8 or fp8 with Q/DQ, else the type of most FLOPs."""
    if layers.quantized:
        return next(layer.precision for layer in layers.costs if layer.precision in QUANTIZED)
    flops: dict[Precision, int] = {}
    for layer in layers.costs:
        flops[layer.precision] = flops.get(layer.precision, 0) + layer.flops
    return max(flops, key=lambda p: flops[p], default="fp32")


def offered(layers: Layers, device: Device, wanted: Precision | None) -> list[Precision]:
    """The precisions to predict: the one that is wanted, else all that mean something."""
    found = list(device.precisions)
    if layers.quantized and wanted is None:
        # the others say nothing about a graph whose layers are in 8 bits
        own = own_precision(layers)
        found = [own] if own in found else found[:1]
    return [p for p in found if wanted in (None, p)]


def shown_precision(layers: Layers, device: Device, wanted: Precision | None) -> Precision | None:
    """What the table of layers shows: the graph's own type where the device has it."""
    found = offered(layers, device, wanted)
    own = own_precision(layers)
    return own if own in found else next(iter(found), None)


def analysis(
    layers: Layers, devices: Sequence[Device], wanted: Precision | None = None
) -> dict[str, Any]:
    """Totals, layers and devices as plain JSON; `wanted` sets the sizes, None is as written."""
    shown = {d.name: shown_precision(layers, d, wanted) for d in devices}
    times = {d.name: _on(layers, d, p) for d in devices if (p := shown[d.name]) is not None}
    rows = []
    for index, layer in enumerate(layers.costs):
        moved = layer_bytes(layers, layer, wanted)
        rows.append(
            {
                "name": layer.name,
                "op": layer.op,
                "precision": layer_precision(layers, layer, wanted),
                "flops": layer.flops,
                "bytes": moved,
                "intensity": intensity(layer.flops, moved),
                "targets": {name: _row(found[index]) for name, found in times.items()},
            }
        )
    return {
        "total": _total(rows, layers, wanted),
        "layers": rows,
        "targets": {d.name: _device(layers, d, wanted, shown[d.name]) for d in devices},
    }


def intensity(flops: int, moved: int) -> float:
    """FLOPs per byte; 0 for what moves nothing."""
    return flops / moved if moved else 0.0


def _row(found: Predicted) -> dict[str, Any]:
    return {
        "bound": found.bound,
        "ms": 1e3 * found.seconds,
        "precision": found.precision,
        "bytes": found.bytes,
    }


def _total(
    rows: Sequence[Mapping[str, Any]], layers: Layers, wanted: Precision | None
) -> dict[str, Any]:
    flops, moved = (sum(row[key] for row in rows) for key in ("flops", "bytes"))
    return {
        "flops": flops,
        "bytes": moved,
        "intensity": intensity(flops, moved),
        "layers": len(rows),
        "precision": wanted or own_precision(layers),
        "unknown": list(layers.unknown),
    }


def _device(
    layers: Layers, device: Device, wanted: Precision | None, shown: Precision | None
) -> dict[str, Any]:
    roofline = device.roofline
    return {
        "title": device.title,
        "measured_on": device.measured_on,
        "peak_flops": {p: roofline.peak_flops[p] for p in device.precisions},
        "bandwidth_bytes_per_s": roofline.bandwidth_bytes_per_s,
        "on_chip_bytes": roofline.on_chip_bytes,
        "layers_at": shown,
        "precisions": {
            p: _summed(_on(layers, device, p), roofline) for p in offered(layers, device, wanted)
        },
    }


def _summed(found: Sequence[Predicted], roofline: Roofline) -> dict[str, Any]:
    """A graph on one device at one precision; `bound` is the roof most of the time goes to."""
    seconds = sum(layer.seconds for layer in found)
    memory = sum(layer.seconds for layer in found if layer.bound == "memory")
    return {
        "ms": 1e3 * seconds,
        "bytes": sum(layer.bytes for layer in found),
        "bound": "memory" if 2 * memory >= seconds else "compute",
        "memory_share": memory / seconds if seconds else 0.0,
        "compute_bound": sum(layer.bound == "compute" for layer in found),
        "memory_bound": sum(layer.bound == "memory" for layer in found),
        "fits_on_chip": sum(layer.bytes <= roofline.on_chip_bytes for layer in found),
    }
