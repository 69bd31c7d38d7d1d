"""Every layer of a placement by itself: what has to change for it alone to run in INT8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from deploy.artifacts.model import Model
from deploy.floats.float8 import Params, tensor, weight, zero_point
from deploy.placed import Placed
from deploy.placement import ActivationQuant, WeightQuant
from deploy.surgery.graph import label, to_model
from deploy.surgery.spans import Graft, Spans
from deploy.target import Quantization


@dataclass(frozen=True)
class LoneLayer:
    """A layer as the placement quantizes it.

    first, last: numbers of the earliest node that changes, and of the layer. activations: what it
    reads in integers, with their parameters. weight_noise: noise power over signal power of its
    weights. output: what it makes, and axis: that value's channels; None without weights.
    """

    name: str
    op: str
    first: int
    last: int
    graft: Graft
    activations: Mapping[str, Params]
    weight_noise: float
    output: str
    axis: int | None

    def mended(self, added: np.ndarray) -> Graft:
        """With `added`, of the output's rank, added to what the layer makes, as a bias would be."""
        raw, name = f"{self.output}/raw", f"{self.output}/mended"
        node = helper.make_node("Add", [raw, name], [self.output], name=name)
        return replace(
            self.graft,
            makes={self.last: raw},
            nodes=[(self.last + 1, node), *self.graft.nodes],
            weights=[*self.graft.weights, numpy_helper.from_array(added, name)],
        )


def lone_layers(placed: Placed, form: Quantization, model: Model) -> tuple[Model, list[LoneLayer]]:
    """The float model as the target reads it, and its layers in the order they were placed.

    The numbers are those `deploy.quantize` writes; biases stay float.
    """
    exact = to_model(placed.graph, model, ())
    spans = Spans(exact)
    activations: dict[int, list[ActivationQuant]] = {}
    weights: dict[int, list[WeightQuant]] = {}
    for a in placed.placement.activations:
        activations.setdefault(id(a.layer), []).append(a)
    for w in placed.placement.weights:
        weights.setdefault(id(w.node), []).append(w)
    found = []
    for node in placed.placement.layers:
        work = _Grafting(placed, form, spans)
        for a in sorted(activations.get(id(node), []), key=lambda a: work.number(a.node)):
            work.quantize_activation(a)
        for w in weights.get(id(node), []):
            work.quantize_weight(w)
        found.append(work.layer(node))
    return exact, found


class _Grafting:
    """Collects one layer's changes."""

    def __init__(self, placed: Placed, form: Quantization, spans: Spans) -> None:
        self.placed = placed
        self.form = form
        self.spans = spans
        self.reads: dict[tuple[int, int], str] = {}
        self.nodes: list[tuple[int, onnx.NodeProto]] = []
        self.weights: list[onnx.TensorProto] = []
        self.activations: dict[str, Params] = {}
        self.weight_noise = 0.0
        self.weighs = False

    def number(self, node: gs.Node) -> int:
        return self.spans.number(node.outputs[0].name)

    def layer(self, node: gs.Node) -> LoneLayer:
        axis = None
        if self.weighs:
            axis = 1 if node.op in ("Conv", "ConvTranspose") else -1
        return LoneLayer(
            label(node),
            node.op,
            min(reader for reader, _ in self.reads),
            self.number(node),
            Graft(self.reads, nodes=self.nodes, weights=self.weights),
            self.activations,
            self.weight_noise,
            node.outputs[0].name,
            axis,
        )

    def quantize_activation(self, placed: ActivationQuant) -> None:
        # readers come in the graph's order: the first one has the pair in front of it
        name, reader = placed.tensor.name, self.number(placed.node)
        if name not in self.activations:
            params = self.placed.params(name, self.form)
            self.activations[name] = params
            nodes, weights = rounding(name, params)
            self.nodes += [(reader, node) for node in nodes]
            self.weights += weights
        self.reads[reader, placed.index] = f"{name}/dequantized"

    def quantize_weight(self, placed: WeightQuant) -> None:
        held = placed.node.inputs[placed.index]
        values = np.asarray(held.values)
        params = weight(values, placed.axis, self.form)
        name = f"{held.name}/rounded"
        self.weighs = True
        self.weight_noise += noise_of(values, params)
        rounded = params.dequantize(params.quantize(values))
        self.weights.append(numpy_helper.from_array(rounded, name))
        self.reads[self.number(placed.node), placed.index] = name


def rounding(name: str, params: Params) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """QuantizeLinear, and DequantizeLinear written out, which makes `name`/dequantized.

    Seeing a pair, ONNX Runtime would quantize the float weights behind it by its own rules, one
    scale for all of them.
    """
    steps = [f"{name}/{part}" for part in ("quantized", "integers", "centred", "dequantized")]
    scale, zero, middle = (f"{name}/{part}" for part in ("scale", "zero_point", "middle"))
    nodes = [
        helper.make_node("QuantizeLinear", [name, scale, zero], [steps[0]]),
        helper.make_node("Cast", [steps[0]], [steps[1]], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sub", [steps[1], middle], [steps[2]]),
        helper.make_node("Mul", [steps[2], scale], [steps[3]]),
    ]
    point = zero_point(params)
    return nodes, [
        numpy_helper.from_array(params.scale, scale),
        tensor(point, params, zero),
        numpy_helper.from_array(point.astype(np.float32), middle),
    ]


def noise_of(values: np.ndarray, params: Params) -> float:
    """Noise power over signal power of the rounded values; 0 for values that are all zero."""
    error = values.astype(np.float64) - params.dequantize(params.quantize(values))
    signal = float(np.sum(values.astype(np.float64) ** 2))
    return float(np.sum(error**2)) / signal if signal else 0.0
