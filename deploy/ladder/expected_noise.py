"""The noise that sound quantization brings, layer by layer: uniform, of one step's width.

    x  =>  x + U(-step/2, step/2)      step = (high - low) / 255
    W  =>  W + U(-s/2, s/2)            s    = max|W_c| / 127 of each channel c

in the float graph, wherever the Q/DQ graph rounds. The steps come from the float graph's values and
from the ranges file, never from the scales of the graph that is judged: a wrong one shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy.artifacts.model import Model, copy_proto
from deploy.artifacts.ranges import Ranges
from deploy.ladder.tensors import Values

_SEED = 1120  # a float32 attribute: small, so that neighbours differ
_LEVELS = 255


class Rounded:
    """What a Q/DQ graph rounds: by output of a layer, its rounded inputs."""

    def __init__(self, quantized: Model) -> None:
        graph = quantized.proto.graph
        self._made = {o: n for n in graph.node for o in n.output}
        self._stored = {w.name: w for w in graph.initializer}
        self.layers = {n.output[0]: n for n in graph.node if n.output}

    def dequantized(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that makes a value."""
        node = self._made.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def weight(self, node: onnx.NodeProto) -> np.ndarray | None:
        """The integers a DequantizeLinear reads, or the float weight in front of its pair; None
        for an activation."""
        name = node.input[0]
        if name not in self._stored:
            source = self._made.get(name)
            if source is None or source.op_type != "QuantizeLinear":
                return None
            name = source.input[0]
        return numpy_helper.to_array(self._stored[name]) if name in self._stored else None

    def scale(self, node: onnx.NodeProto) -> np.ndarray:
        """The scale of a DequantizeLinear; NaN where it is computed."""
        stored = self._stored.get(node.input[1])
        return np.asarray(np.nan) if stored is None else numpy_helper.to_array(stored)

    def centred(self, node: onnx.NodeProto) -> bool:
        """Whether the range is symmetric around zero: int8 with a zero point of 0."""
        zero = self._stored.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None:
            return False
        values = numpy_helper.to_array(zero)
        return values.dtype == np.int8 and not values.any()


def noisy(
    exact: Model, quantized: Model, values: Sequence[Values], ranges: Ranges | None = None
) -> Model | None:
    """The float graph with seeded noise where the other one rounds; None where it rounds nothing.

    values: what the float graph's tensors and inputs hold, per run.
    """
    builder = _Builder(exact, Rounded(quantized), values, ranges)
    for node in builder.graph.node:
        builder.layer(node)
    if not builder.count:
        return None
    made = onnx.GraphProto()
    made.node.extend(builder.nodes)
    del builder.graph.node[:]
    builder.graph.node.extend(made.node)
    return exact.derive(builder.proto, ())


class _Builder:
    def __init__(
        self, exact: Model, rounded: Rounded, values: Sequence[Values], ranges: Ranges | None
    ) -> None:
        self.proto = copy_proto(exact.proto)
        self.graph = self.proto.graph
        self.rounded = rounded
        self.values = values
        self.ranges = ranges
        self.weights = {w.name: w for w in self.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.count = 0
        self.random = np.random.default_rng(_SEED)
        self.moved: dict[str, str] = {}

    def layer(self, node: onnx.NodeProto) -> None:
        """One node of the float graph, its inputs moved as the other graph rounds them."""
        twin = self.rounded.layers.get(node.output[0]) if node.output else None
        if twin is not None and twin.op_type == node.op_type:
            for index, (name, other) in enumerate(zip(node.input, twin.input, strict=False)):
                pair = self.rounded.dequantized(other)
                if pair is not None:
                    node.input[index] = self.read(name, pair)
        own = onnx.NodeProto()
        own.CopyFrom(node)
        self.nodes.append(own)
        if twin is not None and twin.op_type == "DequantizeLinear":
            # what the other graph gives out under this name is rounded itself
            name = node.output[0]
            own.output[0] = f"{name}//exact"
            self.nodes += self.noise(own.output[0], name, self.step(name, twin))

    def read(self, name: str, pair: onnx.NodeProto) -> str:
        """What a layer reads in place of a value."""
        if name in self.weights:
            return self.weight(name, pair)
        if name not in self.moved:
            self.moved[name] = f"{name}//moved"
            self.nodes += self.noise(name, self.moved[name], self.step(name, pair))
        return self.moved[name]

    def weight(self, name: str, pair: onnx.NodeProto) -> str:
        stored = self.rounded.weight(pair)
        values = numpy_helper.to_array(self.weights[name])
        if stored is None or values.dtype.kind != "f":
            return name
        made = f"{name}//moved"
        if made not in self.moved:
            self.moved[made] = made
            width = _weight_steps(values, self.rounded.scale(pair), stored, pair)
            shift = self.random.uniform(-0.5, 0.5, values.shape) * width
            array = (values + shift).astype(values.dtype)
            self.graph.initializer.append(numpy_helper.from_array(array, made))
            self.count += 1
        return made

    def noise(self, source: str, made: str, step: float) -> list[onnx.NodeProto]:
        self.count += 1
        low, high, seed = -step / 2, step / 2, float(_SEED + self.count)
        noise = f"{made}/noise"
        return [
            helper.make_node("RandomUniformLike", [source], [noise], low=low, high=high, seed=seed),
            helper.make_node("Add", [source, noise], [made]),
        ]

    def step(self, name: str, pair: onnx.NodeProto) -> float:
        """The step of an activation's values as they are, or as the ranges file has it."""
        spans = [
            (float(v[name].min()), float(v[name].max())) for v in self.values if _sized(v, name)
        ]
        if self.ranges is not None and name in self.ranges.tensors:
            found = self.ranges.tensors[name].range
            spans.append((found.low, found.high))
        low = min([0.0, *(low for low, _ in spans)])
        high = max([0.0, *(high for _, high in spans)])
        if self.rounded.centred(pair):
            low, high = -max(-low, high), max(-low, high)
        return (high - low) / _LEVELS


def _sized(values: Values, name: str) -> bool:
    return name in values and values[name].size > 0


def _weight_steps(
    values: np.ndarray, scale: np.ndarray, stored: np.ndarray, pair: onnx.NodeProto
) -> np.ndarray:
    """The width of a step per channel, of the weight's rank: the weight's, not the given scale."""
    exact = np.abs(values.astype(np.float64))
    levels = 127.0
    if stored.dtype.kind in "iu" and stored.size:
        # seven or four bits leave the ends of the type unused
        largest = int(np.abs(stored.astype(np.int64)).max())
        levels = next((n for n in (7.0, 15.0, 63.0) if largest <= n + 1), 127.0)
    if scale.ndim == 0 or scale.size == 1:
        return np.asarray(exact.max() / levels)
    axis = next((a.i for a in pair.attribute if a.name == "axis"), 1) % values.ndim
    others = tuple(i for i in range(values.ndim) if i != axis)
    if scale.ndim > 1:  # blocks: one step for each is close to one for the whole row
        return np.asarray(exact.max() / levels)
    return np.asarray(exact.max(axis=others, keepdims=True) / levels)
