"""What sound quantization leaves, layer by layer: the float graph, rounded by steps of our own.

    x  =>  DequantizeLinear(QuantizeLinear(x))    step = (high - low) / 255, or max|x| / 127
    W  =>  s * clip(round(W / s))                 s    = max|W_c| / 127 of each channel c
    in float8: to the nearest neighbour in E4M3, by a scale of max|x| / 448

wherever the Q/DQ graph rounds. The steps come from the float graph's values and from the ranges
file, never from the scales of the graph that is judged: a wrong one shows. A range of the file
counts only where it cuts off no more than calibration would: one that saturates shows too.

Noise of one step's width in place of rounding is no stand-in: it moves the zeros behind a ReLU, and
takes the whole range for the step where calibration clips. On ShuffleNetV1 in TensorRT's form it
foretold 5.4 dB where rounding leaves 23.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from calibrators.float8 import float8_activation, float8_weight
from calibrators.ranges import Range
from deploy.artifacts.model import Model, copy_proto
from deploy.artifacts.ranges import Ranges
from deploy.floats.float8 import FLOAT8
from deploy.floats.float8_noise import float8_rounding
from deploy.ladder.tensors import Values

_LEVELS, _CENTRED = 255, 127
# A range is sound where what it cuts off of these samples costs little against rounding without
# clipping (calibration weighs a clipped value eightfold), or where it cuts off few values: of some
# samples, single ones go further than of the hundreds that were calibrated on.
_MOST_CLIPPED = 8.0
_FEW_VALUES, _FEW_SHARE, _MORE = 2, 0.003, 3.0
_SMALLEST = 1e-28  # a step of a tensor of zeros


class Rounded:
    """What a Q/DQ graph rounds: by output of a layer, its rounded inputs."""

    def __init__(self, quantized: Model) -> None:
        graph = quantized.proto.graph
        self._made = {o: n for n in graph.node for o in n.output}
        self._stored = {w.name: w for w in graph.initializer}
        self.layers = {n.output[0]: n for n in graph.node if n.output}
        self._alike: dict[tuple[bytes, bytes], list[str]] = {}
        for node in graph.node:
            if node.op_type == "QuantizeLinear":
                self._alike.setdefault(self._numbers(node), []).append(node.input[0])

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

    def alike(self, node: onnx.NodeProto) -> list[str]:
        """The tensors that are quantized with the very numbers a DequantizeLinear has: those of one
        scale on purpose. A scale that is wrong by itself has no company."""
        return self._alike.get(self._numbers(node), [])

    def _numbers(self, node: onnx.NodeProto) -> tuple[bytes, bytes]:
        found = [self._stored.get(name) for name in node.input[1:3]]
        raw = [b"" if w is None else numpy_helper.to_array(w).tobytes() for w in found]
        return raw[0], raw[1] if len(raw) > 1 else b""

    def float8(self, node: onnx.NodeProto) -> bool:
        """Whether its values are float8."""
        zero = self._stored.get(node.input[2]) if len(node.input) > 2 else None
        return zero is not None and zero.data_type == FLOAT8

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
    """The float graph, rounded where the other one rounds; None where that rounds nothing.

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
            self.nodes += self.rounding(own.output[0], name, self.span(name, twin), twin)

    def read(self, name: str, pair: onnx.NodeProto) -> str:
        """What a layer reads in place of a value."""
        if name in self.weights:
            return self.weight(name, pair)
        if name not in self.moved:
            self.moved[name] = f"{name}//moved"
            self.nodes += self.rounding(name, self.moved[name], self.span(name, pair), pair)
        return self.moved[name]

    def weight(self, name: str, pair: onnx.NodeProto) -> str:
        stored = self.rounded.weight(pair)
        values = numpy_helper.to_array(self.weights[name])
        if stored is None or values.dtype.kind != "f":
            return name
        made = f"{name}//moved"
        if made not in self.moved:
            self.moved[made] = made
            nearest = _float8_weight if self.rounded.float8(pair) else _rounded_weight
            array = nearest(values, self.rounded.scale(pair), stored, pair)
            self.graph.initializer.append(numpy_helper.from_array(array, made))
            self.count += 1
        return made

    def rounding(
        self, source: str, made: str, span: tuple[float, float], pair: onnx.NodeProto
    ) -> list[onnx.NodeProto]:
        """A value to the nearest that its type has over the span."""
        if span[0] == span[1]:  # nothing is known of it
            return [helper.make_node("Identity", [source], [made])]
        self.count += 1
        if self.rounded.float8(pair):
            scale = float8_activation(Range(*span)).scale
            nodes, constants = float8_rounding((source, made), scale)
            self.graph.initializer.extend(constants)
            return nodes
        step, zero = self.steps(span, pair)
        numbers = [f"{made}/step", f"{made}/zero"]
        for name, value in zip(numbers, (np.float32(step), np.uint8(zero)), strict=True):
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        integers = f"{made}/integers"
        return [
            helper.make_node("QuantizeLinear", [source, *numbers], [integers]),
            helper.make_node("DequantizeLinear", [integers, *numbers], [made]),
        ]

    def steps(self, span: tuple[float, float], pair: onnx.NodeProto) -> tuple[float, int]:
        """The width of the steps of uint8, and which of them is 0."""
        low, high = span
        if self.rounded.centred(pair):
            return max(-low, high) / _CENTRED, _CENTRED + 1
        step = (high - low) / _LEVELS
        return step, int(np.clip(np.rint(-low / step), 0, _LEVELS))

    def span(self, name: str, pair: onnx.NodeProto) -> tuple[float, float]:
        """The range of an activation: the file's where that is sound, else also all its values."""
        held = [v[name] for v in self.values if name in v and v[name].size]
        low = min([0.0, *(float(x.min()) for x in held)])
        high = max([0.0, *(float(x.max()) for x in held)])
        known = self.ranges.tensors if self.ranges is not None else {}
        if name in known:
            own = [known[n].range for n in {name, *self.rounded.alike(pair)} if n in known]
            kept = min(0.0, *(r.low for r in own)), max(0.0, *(r.high for r in own))
            low, high = min(low, kept[0]), max(high, kept[1])
            rounding = ((high - low) / _LEVELS) ** 2 / 12
            if _clips_soundly(held, kept, known[name].clipped, rounding):
                low, high = kept
        return low, high


def _clips_soundly(
    held: Sequence[np.ndarray], span: tuple[float, float], clipped: float, rounding: float
) -> bool:
    """Whether a range leaves so much of these values as calibration would have it.

    clipped: the share that calibration cut off. rounding: the mean square error without clipping.
    """
    total, outside, lost = 0, 0, 0.0
    for x in held:
        over = x[(x < span[0]) | (x > span[1])].astype(np.float64)
        total += x.size
        outside += over.size
        lost += float(np.square(over - np.clip(over, *span)).sum())
    few = _FEW_VALUES + (_FEW_SHARE + _MORE * clipped) * total
    return outside <= few or lost <= _MOST_CLIPPED * rounding * total


def _float8_weight(
    values: np.ndarray, scale: np.ndarray, stored: np.ndarray, pair: onnx.NodeProto
) -> np.ndarray:
    """A weight at its nearest float8 numbers."""
    axis = next((a.i for a in pair.attribute if a.name == "axis"), 1) % values.ndim
    own = float8_weight(values, axis if scale.size > 1 else None)
    return own.dequantize(own.quantize(values)).astype(values.dtype)


def _rounded_weight(
    values: np.ndarray, scale: np.ndarray, stored: np.ndarray, pair: onnx.NodeProto
) -> np.ndarray:
    """A weight to the nearest of its own steps. scale, stored: how finely it is to be rounded."""
    levels = 127
    # NumPy has no four bits: what ONNX reads them into is neither "i" nor "u"
    if stored.dtype.kind != "f" and stored.size:
        # seven or four bits leave the ends of the type unused; unsigned ones are centred elsewhere
        half = np.ptp(stored.astype(np.int64)) / 2
        levels = next((n for n in (7, 63) if half <= n + 1), 127)
    axis = next((a.i for a in pair.attribute if a.name == "axis"), 1) % max(values.ndim, 1)
    exact = values.astype(np.float64)
    above, below = (_widest(np.maximum(x, 0), scale, axis) for x in (exact, -exact))
    if stored.dtype.name.startswith("uint"):
        span = (above + below) / (2 * levels + 1)
    else:
        span = np.maximum(above, below) / levels
    step = np.maximum(span, _SMALLEST)
    return np.asarray(np.rint(values / step) * step, values.dtype)


def _widest(magnitude: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """The largest of those that share a scale, broadcast over the values."""
    if scale.size <= 1:
        return np.asarray(magnitude.max())
    if scale.ndim == magnitude.ndim:  # blocks along the axis
        return _blocks(magnitude, scale.shape[axis], axis)
    others = tuple(i for i in range(magnitude.ndim) if i != axis)
    return np.asarray(magnitude.max(axis=others, keepdims=True))


def _blocks(magnitude: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Per value, the largest of its block: `count` blocks of one length lie along the axis."""
    length = -(-magnitude.shape[axis] // count)
    starts = np.arange(0, magnitude.shape[axis], length)
    each = np.maximum.reduceat(magnitude, starts, axis=axis)
    return np.repeat(each, length, axis=axis).take(range(magnitude.shape[axis]), axis=axis)
