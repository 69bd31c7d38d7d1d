"""INT8 without Q/DQ: a calibration cache and a precision per layer, beside the float graph.

What TensorRT's DLA takes (explicit quantization it doesn't know). The cache is text: a line that
names TensorRT's version and the algorithm, then `tensor: scale` with the scale's float32 in eight
hexadecimal digits, big-endian. TensorRT multiplies it by 127 (NVIDIA/TensorRT 8.5.2,
samples/common/sampleEngines.cpp: readScalesFromCalibrationCache, setTensorScalesFromCalibration).
Weights TensorRT quantizes itself, symmetric per output channel, as explicit Q/DQ does here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision, Model, copy_proto
from deploy.artifacts.ranges import Ranges
from deploy.errors import CalibrationError
from deploy.placed import Placed, place
from deploy.placement import NOTHING, Exclude
from deploy.plugin.ops import DOMAIN
from deploy.quantizable import LAYERS, merged, result
from deploy.surgery.graph import to_model
from deploy.target import Quantization, Target

_ALGORITHM = "EntropyCalibration2"  # the one calibrator the DLA accepts
Kind = Literal["int8", "fp16", "fp32"]


@dataclass(frozen=True)
class Implicit:
    """model: the float graph, its nodes named so that TensorRT's layers are known by name.
    scales: float32 per tensor that an INT8 layer touches. precisions: per layer, "*" the rest."""

    model: Model
    scales: Mapping[str, np.float32]
    precisions: Mapping[str, Kind]

    def cache(self, version: str) -> str:
        """The calibration cache of a TensorRT version, such as "8.5.2"."""
        lines = [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in self.scales.items()]
        return "\n".join([f"TRT-{version_number(version)}-{_ALGORITHM}", *lines, ""])

    def layer_precisions(self) -> str:
        """What trtexec's --layerPrecisions takes, with --precisionConstraints=prefer or obey."""
        return ",".join(f"{name}:{kind}" for name, kind in self.precisions.items())


def implicit(
    model: Model,
    ranges: Ranges,
    target: Target,
    *,
    rest: Kind = "fp16",
    exclude: Exclude = NOTHING,
) -> Implicit:
    """Scales and precisions for what the target's placement runs in INT8.

    rest: the precision of every other layer. Same numbers and errors as `quantize`.
    """
    placed = place(model, ranges, target, exclude)
    layers, inner = _int8_layers(placed)
    scales: dict[str, np.float32] = {}
    for node in layers:
        for name in _float_tensors(node):
            params = placed.params(inner.get(name, name), target.quantization)
            scales[name] = np.float32(params.scale)
    _name_layers(placed.graph)
    precisions: dict[str, Kind] = {"*": rest, **{node.name: "int8" for node in layers}}
    decisions = [*_applied(placed, target.quantization), *placed.placement.skipped]
    return Implicit(to_model(placed.graph, model, decisions), scales, precisions)


def rewritten(described: Implicit, model: Model) -> Implicit:
    """The same for a graph in which plugin operators took the place of some layers.

    An operator is INT8 where the layer whose result it gives was; what is no longer in the graph
    goes from the cache and the list.
    """
    proto = copy_proto(model.proto)
    old = {out: node.name for node in described.model.proto.graph.node for out in node.output}
    tensors, precisions = {i.name for i in proto.graph.input}, {}
    for node in proto.graph.node:
        tensors.update(node.output)
        before = old.get(node.output[0], "")
        if node.domain == DOMAIN:
            node.name = node.name or before
        kind = described.precisions.get(before if node.domain == DOMAIN else node.name)
        if kind is not None:
            precisions[node.name] = kind
    return Implicit(
        model.derive(proto, model.decisions),
        {name: scale for name, scale in described.scales.items() if name in tensors},
        {"*": described.precisions["*"], **precisions},
    )


def version_number(version: str) -> int:
    """NV_TENSORRT_VERSION: 8502 for "8.5.2", 100300 for "10.3.0"."""
    try:
        major, minor, patch = (int(part) for part in version.split(".")[:3])
    except ValueError:
        raise CalibrationError(
            f"TensorRT version {version!r}; a cache needs all of major.minor.patch, such as 8.5.2"
        ) from None
    thousand = 1000 if major < 10 else 10000
    return major * thousand + minor * 100 + patch


def _int8_layers(placed: Placed) -> tuple[list[gs.Node], dict[str, str]]:
    """The layers placed in INT8 and what is computed in them, in the graph's order; per value
    inside a layer its result. The result's scale stands for such a value: TensorRT reports one
    without, and where the two are not merged the activation would clip to that range anyway."""
    layers = {id(node) for node in placed.placement.layers}
    inner: dict[str, str] = {}
    for node in placed.placement.layers:
        if node.op not in (*LAYERS, "Add"):
            continue
        inside = [node, *merged(node)]
        layers.update(id(part) for part in inside)
        inner.update({part.outputs[0].name: result(node).name for part in inside})
    return [node for node in placed.graph.nodes if id(node) in layers], inner


def _float_tensors(node: gs.Node) -> Iterator[str]:
    """What a layer reads and writes, without weights, shapes and what is left out."""
    for tensor in (*node.inputs, *node.outputs):
        constant = isinstance(tensor, gs.Constant)
        if not constant and not tensor.is_empty() and tensor.dtype == np.float32:
            if "\n" in tensor.name:
                raise CalibrationError(f"tensor {tensor.name!r} has a line break; rename it")
            yield tensor.name


def _name_layers(graph: gs.Graph) -> None:
    """Give every node a name, and one without commas, which end a name in trtexec's list.

    TensorRT would name an unnamed node after its output; so does this.
    """
    used = {node.name for node in graph.nodes}
    for node in graph.nodes:
        if node.name and "," not in node.name:
            continue
        plain = (node.name or f"node_of_{node.outputs[0].name}").replace(",", ";")
        node.name = next(name for name in _numbered(plain) if name not in used)
        used.add(node.name)


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(1))


def _applied(placed: Placed, form: Quantization) -> list[Decision]:
    """A Decision per tensor that INT8 layers read, as `quantize` takes them."""
    reasons = {a.tensor.name: a.reason for a in placed.placement.activations}
    return [
        Decision(
            "quantize",
            "activation",
            "applied",
            name,
            f"int8, scale {float(placed.params(name, form).scale):.6g}, {reason}"
            f"{placed.shared_with(name)}",
        )
        for name, reason in reasons.items()
    ]
