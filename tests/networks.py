"""Torchvision's image classifiers as ONNX graphs with seeded random weights, named as its exporter
names them: what the fusions are proven and timed on.

Weights follow He, the BatchNorms hold plausible statistics and the last one of a residual branch
is small, so that values stay near 1 through any depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Value = str


@dataclass(frozen=True)
class Style:
    """How the graph is written: `folded` leaves no BatchNorm, `computed_shapes` spells the shapes
    of a shuffle with Shape and Concat as the exporter does for a dynamic batch, `width` scales
    channels and `depth` the number of blocks in a stage."""

    image: tuple[int, int] = (224, 224)
    batch: int | str = "N"
    width: float = 1.0
    depth: float = 1.0
    classes: int = 1000
    folded: bool = True
    computed_shapes: bool = False
    opset: int = 17
    seed: int = 0

    def channels(self, count: int) -> int:
        """A scaled number of channels, a multiple of 8 as everywhere in torchvision."""
        return count if self.width == 1 else max(8, round(count * self.width / 8) * 8)

    def blocks(self, count: int) -> int:
        return max(1, round(count * self.depth))


def network(name: str, **style: Any) -> onnx.ModelProto:
    """That network of `NETWORKS`, float32[N, 3, H, W] to float32[N, classes]."""
    build = Builder(Style(**style))
    return build.model(name, NETWORKS[name](build, "input"))


@dataclass
class Builder:
    """Nodes and weights so far; every method adds a layer and returns its output's name."""

    style: Style
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    shapes: dict[Value, tuple[int, ...]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.style.seed)
        self.shapes["input"] = (3, *self.style.image)

    def model(self, name: str, output: Value) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "output"
        inputs, outputs = (self.style.batch, *self.shapes["input"]), self.shapes[output]
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, inputs)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [inputs[0], *outputs])],
            self.weights,
        )
        opset = [helper.make_opsetid("", self.style.opset)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        onnx.checker.check_model(model)
        return model

    def add(
        self, op: str, inputs: Sequence[Value], scope: str, shape: tuple[int, ...], **attrs: Any
    ) -> Value:
        """One node; `shape` is its first output's, without the batch."""
        return self.adds(op, inputs, scope, [shape], **attrs)[0]

    def adds(
        self,
        op: str,
        inputs: Sequence[Value],
        scope: str,
        shapes: Sequence[tuple[int, ...]],
        **attrs: Any,
    ) -> list[Value]:
        path = "/" + "/".join(part for part in (scope.replace(".", "/"), op) if part)
        name, number = path, 0
        while name in self.taken:
            number += 1
            name = f"{path}_{number}"
        self.taken.add(name)
        outputs = [f"{name}_output_{index}" for index in range(len(shapes))]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=name, **attrs))
        self.shapes.update(zip(outputs, shapes, strict=True))
        return outputs

    def weight(self, name: str, values: Any, dtype: Any = np.float32) -> Value:
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def conv(
        self,
        x: Value,
        out: int,
        scope: str,
        *,
        kernel: int = 1,
        stride: int = 1,
        group: int = 1,
        norm: bool = True,
        gain: float = 1.0,
        bias: bool = False,
    ) -> Value:
        """Convolution and, unless `norm` is off, the BatchNorm behind it (folded: a bias)."""
        channels, height, width = self.shapes[x]
        fan_in = channels // group * kernel * kernel
        values = self.random.standard_normal((out, channels // group, kernel, kernel))
        values *= gain * np.sqrt(2 / fan_in)
        inputs = [x, self.weight(f"{scope}.weight", values)]
        if bias or (norm and self.style.folded):
            inputs.append(self.weight(f"{scope}.bias", 0.1 * self.random.standard_normal(out)))
        pad = kernel // 2
        size = [(n + 2 * pad - kernel) // stride + 1 for n in (height, width)]
        y = self.add(
            "Conv",
            inputs,
            scope,
            (out, *size),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[pad] * 4,
            dilations=[1, 1],
            group=group,
        )
        return self.norm(y, f"{scope}.bn") if norm and not self.style.folded else y

    def norm(self, x: Value, scope: str) -> Value:
        channels = self.shapes[x][0]
        around_one = [1 + 0.2 * self.random.uniform(-1, 1, channels) for _ in range(2)]
        near_zero = [0.1 * self.random.standard_normal(channels) for _ in range(2)]
        values = (around_one[0], near_zero[0], near_zero[1], around_one[1])
        names = ("weight", "bias", "running_mean", "running_var")
        given = [self.weight(f"{scope}.{n}", v) for n, v in zip(names, values, strict=True)]
        return self.add("BatchNormalization", [x, *given], scope, self.shapes[x], epsilon=1e-5)

    def act(self, x: Value, kind: str, scope: str) -> Value:
        """relu, relu6 (Clip), swish (x * Sigmoid), HardSwish, HardSigmoid, Sigmoid or none."""
        shape = self.shapes[x]
        if kind == "none":
            return x
        if kind == "relu6":
            low, high = self.constant(0.0, np.float32), self.constant(6.0, np.float32)
            return self.add("Clip", [x, low, high], scope, shape)
        if kind == "swish":
            return self.add("Mul", [x, self.add("Sigmoid", [x], scope, shape)], scope, shape)
        attrs = {"alpha": 1 / 6, "beta": 0.5} if kind == "HardSigmoid" else {}
        return self.add({"relu": "Relu"}.get(kind, kind), [x], scope, shape, **attrs)

    def constant(self, values: Any, dtype: Any = np.int64) -> Value:
        """A small weight under a name of its own, where the exporter has a Constant node."""
        return self.weight(f"onnx::Constant_{len(self.weights)}", values, dtype)

    def plus(self, x: Value, y: Value, scope: str) -> Value:
        return self.add("Add", [x, y], scope, self.shapes[x])

    def concat(self, parts: Sequence[Value], scope: str) -> Value:
        channels = sum(self.shapes[p][0] for p in parts)
        return self.add("Concat", parts, scope, (channels, *self.shapes[parts[0]][1:]), axis=1)

    def max_pool(
        self, x: Value, scope: str, kernel: int = 3, stride: int = 2, pad: int = 0, ceil: int = 0
    ) -> Value:
        channels, *sizes = self.shapes[x]
        span = [n + 2 * pad - kernel for n in sizes]
        out = [-(-n // stride) + 1 if ceil else n // stride + 1 for n in span]
        # a window may not start in the padding behind the map
        out = [o - 1 if (o - 1) * stride >= n + pad else o for o, n in zip(out, sizes, strict=True)]
        attrs = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        return self.add("MaxPool", [x], scope, (channels, *out), ceil_mode=ceil, **attrs)

    def excite(self, x: Value, squeezed: int, gate: str, inner: str, scope: str) -> Value:
        """Squeeze and excitation: x times a gate computed from its averages."""
        channels = self.shapes[x][0]
        average = self.add("GlobalAveragePool", [x], f"{scope}.avgpool", (channels, 1, 1))
        hidden = self.conv(average, squeezed, f"{scope}.fc1", norm=False, bias=True)
        hidden = self.act(hidden, inner, f"{scope}.activation")
        scale = self.conv(hidden, channels, f"{scope}.fc2", norm=False, bias=True)
        scale = self.act(scale, gate, f"{scope}.scale_activation")
        return self.add("Mul", [scale, x], scope, self.shapes[x])

    def shuffle(self, x: Value, groups: int, scope: str) -> Value:
        """channel_shuffle: view as [N, g, C/g, H, W], swap the two axes, view back."""
        channels, height, width = self.shapes[x]
        split = (groups, channels // groups, height, width)
        y = self.add("Reshape", [x, self.shape_of(x, split, scope)], scope, split)
        swapped = (split[1], groups, height, width)
        y = self.add("Transpose", [y], scope, swapped, perm=[0, 2, 1, 3, 4])
        back = (channels, height, width)
        return self.add("Reshape", [y, self.shape_of(x, back, scope)], scope, back)

    def shape_of(self, x: Value, dims: tuple[int, ...], scope: str) -> Value:
        """The argument of a Reshape to [N, *dims], as a constant or computed at run time."""
        if not self.style.computed_shapes:
            return self.constant([-1, *dims])
        shape = self.add("Shape", [x], scope, ())
        batch = self.add("Gather", [shape, self.constant(0)], scope, (), axis=0)
        parts = [self.add("Unsqueeze", [batch, self.constant([0])], scope, ())]
        parts += [self.constant([d]) for d in dims]
        return self.add("Concat", parts, scope, (), axis=0)

    def classify(self, x: Value, scope: str, *, mean: bool = False) -> Value:
        """Global average and a Gemm; `mean` spells the average as torch's mean([2, 3])."""
        channels = self.shapes[x][0]
        if mean:
            flat = self.add("ReduceMean", [x], "", (channels,), axes=[2, 3], keepdims=0)
        else:
            pooled = self.add("GlobalAveragePool", [x], "avgpool", (channels, 1, 1))
            flat = self.add("Flatten", [pooled], "", (channels,), axis=1)
        classes = self.style.classes
        matrix = self.random.standard_normal((classes, channels)) / np.sqrt(channels)
        given = [self.weight(f"{scope}.weight", matrix)]
        given.append(self.weight(f"{scope}.bias", 0.1 * self.random.standard_normal(classes)))
        return self.add("Gemm", [flat, *given], scope, (classes,), transB=1)


@dataclass(frozen=True)
class Bottleneck:
    """An inverted residual: widen, depthwise, excite, project."""

    hidden: int
    out: int
    kernel: int = 3
    stride: int = 1
    squeezed: int = 0
    act: str = "relu6"
    gate: str = "Sigmoid"
    inner: str = "relu"

    def __call__(self, b: Builder, x: Value, scope: str) -> Value:
        channels = b.shapes[x][0]
        y = x
        if self.hidden != channels:
            y = b.act(b.conv(y, self.hidden, f"{scope}.0"), self.act, f"{scope}.0.act")
        y = b.conv(
            y, self.hidden, f"{scope}.1", kernel=self.kernel, stride=self.stride, group=self.hidden
        )
        y = b.act(y, self.act, f"{scope}.1.act")
        if self.squeezed:
            y = b.excite(y, self.squeezed, self.gate, self.inner, f"{scope}.2")
        residual = self.stride == 1 and channels == self.out
        y = b.conv(y, self.out, f"{scope}.3", gain=0.3 if residual else 0.7)
        return b.plus(x, y, scope) if residual else y


def shufflenet_v2(b: Builder, x: Value, widths: Sequence[int]) -> Value:
    x = b.act(b.conv(x, b.style.channels(24), "conv1.0", kernel=3, stride=2), "relu", "conv1.2")
    x = b.max_pool(x, "maxpool", pad=1)
    for stage, (blocks, out) in enumerate(zip((4, 8, 4), widths[:3], strict=True), 2):
        for block in range(b.style.blocks(blocks)):
            x = _shuffle_unit(b, x, b.style.channels(out), f"stage{stage}.{block}", block == 0)
    x = b.act(b.conv(x, b.style.channels(widths[3]), "conv5.0"), "relu", "conv5.2")
    return b.classify(x, "fc", mean=True)


def _shuffle_unit(b: Builder, x: Value, out: int, scope: str, down: bool) -> Value:
    half, stride = out // 2, 2 if down else 1
    if down:
        kept = b.conv(
            x, b.shapes[x][0], f"{scope}.branch1.0", kernel=3, stride=2, group=b.shapes[x][0]
        )
        kept = b.act(b.conv(kept, half, f"{scope}.branch1.2"), "relu", f"{scope}.branch1.4")
        y = x
    else:
        shape = (half, *b.shapes[x][1:])
        kept, y = b.adds("Split", [x, b.constant([half] * 2)], scope, [shape, shape], axis=1)
    y = b.act(b.conv(y, half, f"{scope}.branch2.0"), "relu", f"{scope}.branch2.2")
    y = b.conv(y, half, f"{scope}.branch2.3", kernel=3, stride=stride, group=half)
    y = b.act(b.conv(y, half, f"{scope}.branch2.5"), "relu", f"{scope}.branch2.7")
    return b.shuffle(b.concat([kept, y], scope), 2, scope)


def mobilenet_v2(b: Builder, x: Value) -> Value:
    wide = b.style.channels
    x = b.act(b.conv(x, wide(32), "features.0.0", kernel=3, stride=2), "relu6", "features.0.2")
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    rows += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for row, (expand, out, count, stride) in enumerate(rows, 1):
        for index in range(b.style.blocks(count)):
            hidden = b.shapes[x][0] * expand
            block = Bottleneck(hidden, wide(out), stride=stride if index == 0 else 1)
            x = block(b, x, f"features.{row}.{index}.conv")
    x = b.act(b.conv(x, wide(1280), "features.18.0"), "relu6", "features.18.2")
    return b.classify(x, "classifier.1")


# kernel, hidden, out, excited, HardSwish, stride: torchvision's table
_V3_LARGE = [
    (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2),
    (5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1),
]  # fmt: skip
_V3_SMALL = [
    (3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2),
    (5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1),
    (5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1),
]  # fmt: skip


def mobilenet_v3(b: Builder, x: Value, table: Sequence[tuple[int, ...]], last: int) -> Value:
    wide = b.style.channels
    x = b.conv(x, wide(16), "features.0.0", kernel=3, stride=2)
    x = b.act(x, "HardSwish", "features.0.2")
    for row, (kernel, hidden, out, excited, hard, stride) in enumerate(table, 1):
        squeezed = max(8, (wide(hidden) // 4 + 4) // 8 * 8) if excited else 0
        act = "HardSwish" if hard else "relu"
        block = Bottleneck(wide(hidden), wide(out), kernel, stride, squeezed, act, "HardSigmoid")
        x = block(b, x, f"features.{row}.block")
    x = b.act(b.conv(x, wide(table[-1][2] * 6), "features.last.0"), "HardSwish", "features.last.2")
    channels = b.shapes[x][0]
    pooled = b.add("GlobalAveragePool", [x], "avgpool", (channels, 1, 1))
    flat = b.add("Flatten", [pooled], "", (channels,), axis=1)
    hidden = wide(last)
    matrix = b.random.standard_normal((hidden, channels)) / np.sqrt(channels)
    given = [b.weight("classifier.0.weight", matrix), b.weight("classifier.0.bias", [0.1] * hidden)]
    x = b.act(
        b.add("Gemm", [flat, *given], "classifier.0", (hidden,), transB=1),
        "HardSwish",
        "classifier.1",
    )
    matrix = b.random.standard_normal((b.style.classes, hidden)) / np.sqrt(hidden)
    given = [
        b.weight("classifier.3.weight", matrix),
        b.weight("classifier.3.bias", [0.1] * b.style.classes),
    ]
    return b.add("Gemm", [x, *given], "classifier.3", (b.style.classes,), transB=1)


def resnet(b: Builder, x: Value, counts: Sequence[int], deep: bool) -> Value:
    wide = b.style.channels
    x = b.act(b.conv(x, wide(64), "conv1", kernel=7, stride=2), "relu", "relu")
    x = b.max_pool(x, "maxpool", pad=1)
    for stage, count in enumerate(counts):
        for block in range(b.style.blocks(count)):
            stride = 2 if stage and block == 0 else 1
            x = _residual(b, x, wide(64 << stage), stride, deep, f"layer{stage + 1}.{block}")
    return b.classify(x, "fc")


def _residual(b: Builder, x: Value, inner: int, stride: int, deep: bool, scope: str) -> Value:
    out = inner * 4 if deep else inner
    if deep:
        y = b.act(b.conv(x, inner, f"{scope}.conv1"), "relu", f"{scope}.relu")
        y = b.conv(y, inner, f"{scope}.conv2", kernel=3, stride=stride)
        y = b.act(y, "relu", f"{scope}.relu")
        y = b.conv(y, out, f"{scope}.conv3", gain=0.3)
    else:
        y = b.conv(x, inner, f"{scope}.conv1", kernel=3, stride=stride)
        y = b.act(y, "relu", f"{scope}.relu")
        y = b.conv(y, out, f"{scope}.conv2", kernel=3, gain=0.3)
    if stride != 1 or b.shapes[x][0] != out:
        x = b.conv(x, out, f"{scope}.downsample.0", stride=stride, gain=0.7)
    return b.act(b.plus(y, x, scope), "relu", f"{scope}.relu")


def efficientnet_b0(b: Builder, x: Value) -> Value:
    wide = b.style.channels
    x = b.act(b.conv(x, wide(32), "features.0.0", kernel=3, stride=2), "swish", "features.0.2")
    rows = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)]
    rows += [(6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)]
    for row, (expand, kernel, stride, out, count) in enumerate(rows, 1):
        for index in range(b.style.blocks(count)):
            channels = b.shapes[x][0]
            first = stride if index == 0 else 1
            squeezed = max(1, channels // 4)
            block = Bottleneck(
                channels * expand, wide(out), kernel, first, squeezed, "swish", inner="swish"
            )
            x = block(b, x, f"features.{row}.{index}.block")
    x = b.act(b.conv(x, wide(1280), "features.8.0"), "swish", "features.8.2")
    return b.classify(x, "classifier.1")


def squeezenet1_1(b: Builder, x: Value) -> Value:
    wide = b.style.channels
    x = _plain(b, x, wide(64), "features.0", kernel=3, stride=2)
    rows = [(0, 16, 64), (0, 16, 64), (1, 32, 128), (0, 32, 128)]
    rows += [(1, 48, 192), (0, 48, 192), (0, 64, 256), (0, 64, 256)]
    x = b.max_pool(x, "features.2", ceil=1)
    for row, (pooled, narrow, out) in enumerate(rows, 3):
        if pooled:
            x = b.max_pool(x, f"features.{row}.pool", ceil=1)
        scope = f"features.{row}"
        x = _plain(b, x, wide(narrow), f"{scope}.squeeze")
        small = _plain(b, x, wide(out), f"{scope}.expand1x1")
        large = _plain(b, x, wide(out), f"{scope}.expand3x3", kernel=3)
        x = b.concat([small, large], scope)
    x = _plain(b, x, b.style.classes, "classifier.1")
    pooled_map = b.add("GlobalAveragePool", [x], "classifier.3", (b.style.classes, 1, 1))
    return b.add("Flatten", [pooled_map], "", (b.style.classes,), axis=1)


def _plain(b: Builder, x: Value, out: int, scope: str, **geometry: int) -> Value:
    return b.act(b.conv(x, out, scope, norm=False, bias=True, **geometry), "relu", f"{scope}.act")


def mnasnet1_0(b: Builder, x: Value) -> Value:
    wide = b.style.channels
    x = b.act(b.conv(x, wide(32), "layers.0", kernel=3, stride=2), "relu", "layers.2")
    x = Bottleneck(wide(32), wide(16), act="relu")(b, x, "layers.3")
    rows = [(24, 3, 2, 3, 3), (40, 5, 2, 3, 3), (80, 5, 2, 6, 3)]
    rows += [(96, 3, 1, 6, 2), (192, 5, 2, 6, 4), (320, 3, 1, 6, 1)]
    for row, (out, kernel, stride, expand, count) in enumerate(rows, 8):
        for index in range(b.style.blocks(count)):
            hidden = b.shapes[x][0] * expand
            first = stride if index == 0 else 1
            block = Bottleneck(hidden, wide(out), kernel, first, act="relu")
            x = block(b, x, f"layers.{row}.{index}.layers")
    x = b.act(b.conv(x, wide(1280), "layers.14"), "relu", "layers.16")
    return b.classify(x, "classifier.1", mean=True)


def regnet_y_400mf(b: Builder, x: Value) -> Value:
    wide = b.style.channels
    x = b.act(b.conv(x, wide(32), "stem.0", kernel=3, stride=2), "relu", "stem.2")
    for stage, (out, count) in enumerate([(48, 1), (104, 3), (208, 6), (440, 6)], 1):
        for block in range(b.style.blocks(count)):
            scope = f"trunk_output.block{stage}.block{stage}-{block}"
            x = _regnet_block(b, x, wide(out), 2 if block == 0 else 1, scope)
    return b.classify(x, "fc")


def _regnet_block(b: Builder, x: Value, out: int, stride: int, scope: str) -> Value:
    squeezed = max(1, b.shapes[x][0] // 4)
    y = b.act(b.conv(x, out, f"{scope}.f.a.0"), "relu", f"{scope}.f.a.2")
    y = b.conv(y, out, f"{scope}.f.b.0", kernel=3, stride=stride, group=out // 8)
    y = b.act(y, "relu", f"{scope}.f.b.2")
    y = b.excite(y, squeezed, "Sigmoid", "relu", f"{scope}.f.se")
    y = b.conv(y, out, f"{scope}.f.c.0", gain=0.3)
    if stride != 1 or b.shapes[x][0] != out:
        x = b.conv(x, out, f"{scope}.proj.0", stride=stride, gain=0.7)
    return b.act(b.plus(x, y, scope), "relu", f"{scope}.activation")


# 1x1, 3x3 reduced, 3x3, "5x5" reduced, "5x5" (a 3x3 in torchvision), pooled
_INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


def googlenet(b: Builder, x: Value) -> Value:
    wide = b.style.channels
    x = _transform_input(b, x)
    x = b.act(b.conv(x, wide(64), "conv1.conv", kernel=7, stride=2), "relu", "conv1")
    x = b.max_pool(x, "maxpool1", ceil=1)
    x = b.act(b.conv(x, wide(64), "conv2.conv"), "relu", "conv2")
    x = b.act(b.conv(x, wide(192), "conv3.conv", kernel=3), "relu", "conv3")
    x = b.max_pool(x, "maxpool2", ceil=1)
    for name, row in _INCEPTIONS.items():
        one, less3, three, less5, five, pooled = (wide(n) for n in row)
        scope = f"inception{name}"
        if name in ("4a", "5a"):
            x = b.max_pool(x, f"maxpool.{name}", kernel=3 if name == "4a" else 2, ceil=1)

        def layer(x: Value, out: int, part: str, kernel: int = 1, scope: str = scope) -> Value:
            y = b.conv(x, out, f"{scope}.{part}.conv", kernel=kernel)
            return b.act(y, "relu", f"{scope}.{part}")

        parts = [layer(x, one, "branch1")]
        parts.append(layer(layer(x, less3, "branch2.0"), three, "branch2.1", 3))
        parts.append(layer(layer(x, less5, "branch3.0"), five, "branch3.1", 3))
        around = b.max_pool(x, f"{scope}.branch4.0", stride=1, pad=1, ceil=1)
        parts.append(layer(around, pooled, "branch4.1"))
        x = b.concat(parts, scope)
    return b.classify(x, "fc")


def _transform_input(b: Builder, x: Value) -> Value:
    """From ImageNet's mean and std to 0.5 and 0.5, channel by channel."""
    _, height, width = b.shapes[x]
    shape = (1, height, width)
    parts = []
    for index, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        y = b.add("Gather", [x, b.constant(index)], "", shape[1:], axis=1)
        y = b.add("Unsqueeze", [y, b.constant([1])], "", shape)
        y = b.add("Mul", [y, b.constant(std / 0.5, np.float32)], "", shape)
        shift = b.constant((mean - 0.5) / 0.5, np.float32)
        parts.append(b.add("Add", [y, shift], "", shape))
    return b.concat(parts, "")


NETWORKS: dict[str, Callable[[Builder, Value], Value]] = {
    "shufflenet_v2_x0_5": lambda b, x: shufflenet_v2(b, x, (48, 96, 192, 1024)),
    "shufflenet_v2_x1_0": lambda b, x: shufflenet_v2(b, x, (116, 232, 464, 1024)),
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": lambda b, x: mobilenet_v3(b, x, _V3_SMALL, 1024),
    "mobilenet_v3_large": lambda b, x: mobilenet_v3(b, x, _V3_LARGE, 1280),
    "resnet18": lambda b, x: resnet(b, x, (2, 2, 2, 2), deep=False),
    "resnet50": lambda b, x: resnet(b, x, (3, 4, 6, 3), deep=True),
    "efficientnet_b0": efficientnet_b0,
    "squeezenet1_1": squeezenet1_1,
    "mnasnet1_0": mnasnet1_0,
    "regnet_y_400mf": regnet_y_400mf,
    "googlenet": googlenet,
}
