"""Networks as tf2onnx writes those of Keras: channels last, and a Transpose on either side of what
ONNX only has with channels in front. Seeded weights, odd sizes, H != W."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.artifacts.model import Model

TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


class ChannelsLast:
    """Nodes so far; every method adds a layer and returns its output's name."""

    def __init__(
        self,
        batch: int | str,
        *,
        opset: int = 18,
        written_out: bool = False,
        of_rows: Literal["", "known", "computed"] = "",
    ) -> None:
        self.batch, self.opset, self.written_out = batch, opset, written_out
        self.of_rows = of_rows
        self.random = np.random.default_rng(5)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape: dict[str, tuple[int, ...]] = {"x": (12, 10, 3)}

    def __call__(self, op: str, *inputs: str | np.ndarray, count: int = 1, **attrs: object) -> str:
        outputs = [f"{op}_{len(self.nodes)}_{i}" for i in range(count)]
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        self.nodes.append(helper.make_node(op, names, outputs, **attrs))
        same = next((self.shape[n] for n in names if n in self.shape), ())
        self.shape.update(dict.fromkeys(outputs, same))
        return outputs[0]

    def constant(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def normal(self, *shape: int, scale: float = 1.0, around: float = 0.0) -> np.ndarray:
        return (self.random.standard_normal(shape) * scale + around).astype(np.float32)

    def conv(
        self, x: str, out: int, kernel: int = 1, stride: int = 1, depthwise: bool = False
    ) -> str:
        height, width, channels = self.shape[x]
        per_group = 1 if depthwise else channels
        size = (channels if depthwise else out, per_group, kernel, kernel)
        weight = self.normal(*size, scale=(per_group * kernel * kernel) ** -0.5)
        pads = [(kernel - 1) // 2] * 4 if stride == 1 else [0] * 4
        y = self("Transpose", x, perm=TO_NCHW)
        group = channels if depthwise else 1
        y = self("Conv", y, weight, pads=pads, strides=[stride] * 2, group=group)
        y = self("Transpose", y, perm=TO_NHWC)
        rows, columns = ((n + 2 * pads[0] - kernel) // stride + 1 for n in (height, width))
        self.shape[y] = (rows, columns, size[0])
        return self("Add", y, self.normal(size[0], scale=0.1))

    def dense(self, x: str, out: int) -> str:
        *space, channels = self.shape[x]
        weight = self.normal(channels, out, scale=channels**-0.5)
        y = self._tensordot(x, weight) if self.of_rows and space else self("MatMul", x, weight)
        self.shape[y] = (*space, out)
        return self("Add", y, self.normal(out, scale=0.1))

    def _tensordot(self, x: str, weight: np.ndarray) -> str:
        """As tf.tensordot: rows, and back to a map whose sizes may be read from it."""
        *space, channels = self.shape[x]
        rows = self("MatMul", self("Reshape", x, np.asarray([-1, channels])), weight)
        if self.of_rows == "known":
            return self("Reshape", rows, np.asarray([-1, *space, weight.shape[1]]))
        front = self("Gather", self("Shape", x), np.asarray([0, 1, 2]), axis=0)
        sizes = self("Concat", front, np.asarray([weight.shape[1]]), axis=0)
        return self("Reshape", rows, sizes)

    def reshape(self, x: str, *sizes: int) -> str:
        y = self("Reshape", x, np.asarray([-1, *sizes]))
        self.shape[y] = sizes
        return y

    def mean(self, x: str, *axes: int, keep: int) -> str:
        if self.opset < 18:
            y = self("ReduceMean", x, axes=list(axes), keepdims=keep)
        else:
            y = self("ReduceMean", x, np.asarray(axes), keepdims=keep)
        if not keep:
            self.shape[y] = self.shape[x][-1:]
        return y

    def layer_norm(self, x: str) -> str:
        """The operator, or what Keras writes: x * s + (bias - mean * s), s = scale / deviation."""
        channels = self.shape[x][-1]
        scale, bias = self.normal(channels, scale=0.2, around=1), self.normal(channels, scale=0.2)
        if not self.written_out:
            return self("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-3)
        mean = self.mean(x, -1, keep=1)
        centred = self("Sub", x, mean)
        variance = self.mean(self("Mul", centred, centred), -1, keep=1)
        root = self("Sqrt", self("Add", variance, np.float32([1e-3])))
        factor = self("Mul", self("Reciprocal", root), scale)
        shift = self("Sub", bias, self("Mul", mean, factor))
        self.shape[shift] = self.shape[x]
        return self("Add", self("Mul", x, factor), shift)

    def gelu(self, x: str) -> str:
        inner = self("Erf", self("Div", x, np.float32(2**0.5)))
        half = self("Mul", x, np.float32(0.5))
        return self("Mul", half, self("Add", inner, np.float32(1)))

    def shuffle(self, x: str, groups: int) -> str:
        height, width, channels = self.shape[x]
        y = self.reshape(x, height, width, groups, channels // groups)
        y = self("Transpose", y, perm=[0, 1, 2, 4, 3])
        return self.reshape(y, height, width, channels)

    def halves(self, x: str) -> tuple[str, str]:
        height, width, channels = self.shape[x]
        first = self("Split", x, np.asarray([channels // 2] * 2), count=2, axis=3)
        second = f"{first[:-1]}1"
        self.shape.update(dict.fromkeys((first, second), (height, width, channels // 2)))
        return first, second

    def concat(self, *parts: str) -> str:
        y = self("Concat", *parts, axis=3)
        self.shape[y] = (*self.shape[parts[0]][:2], sum(self.shape[p][2] for p in parts))
        return y

    def model(self, output: str) -> Model:
        self.nodes[-1].output[0] = "y"
        sizes = {"x": self.shape["x"], "y": self.shape[output]}
        x, y = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [self.batch, *size])
            for name, size in sizes.items()
        )
        graph = helper.make_graph(self.nodes, "channels last", [x], [y], self.weights)
        opset = [helper.make_opsetid("", self.opset)]
        proto = helper.make_model(graph, opset_imports=opset, ir_version=8)
        onnx.checker.check_model(proto, full_check=True)
        return Model(proto, "m")


def head(b: ChannelsLast, x: str, *, norm: bool = False) -> str:
    """Global average, and a classifier."""
    y = b.mean(x, 1, 2, keep=0)
    return b("Softmax", b.dense(b.layer_norm(y) if norm else y, 5), axis=-1)


def convnext(b: ChannelsLast) -> str:
    """keras.applications.convnext: LayerNormalization and Dense on maps."""
    y = b.layer_norm(b.conv("x", 8, kernel=2, stride=2))
    for channels in (8, 12):
        if channels != b.shape[y][-1]:
            y = b.conv(b.layer_norm(y), channels, kernel=2, stride=2)
        for _ in range(2):
            z = b.layer_norm(b.conv(y, channels, kernel=3, depthwise=True))
            z = b.dense(b.gelu(b.dense(z, 4 * channels)), channels)
            y = b("Add", y, b("Mul", z, b.normal(channels, scale=0.5)))
    return head(b, y, norm=True)


def dense_on_maps(b: ChannelsLast) -> str:
    """A pixel's own two layers between convolutions, and classes per pixel."""
    y = b("Relu", b.conv("x", 7, kernel=3))
    y = b("Relu", b.dense(y, 11))
    y = b.conv(b("Sigmoid", b.dense(y, 6)), 9, kernel=3)
    return b("Softmax", b.dense(y, 4), axis=-1)


def shufflenet_v2(b: ChannelsLast) -> str:
    """A unit that halves the map and two that keep it, each with its shuffle of the last axis."""
    x = b("Relu", b.conv("x", 8, kernel=3))
    left = b("Relu", b.conv(b.conv(x, 8, kernel=3, stride=2, depthwise=True), 12))
    right = b.conv(b("Relu", b.conv(x, 12)), 12, kernel=3, stride=2, depthwise=True)
    y = b.shuffle(b.concat(left, b("Relu", b.conv(right, 12))), 2)
    for _ in range(2):
        kept, z = b.halves(y)
        z = b.conv(b("Relu", b.conv(z, 12)), 12, kernel=3, depthwise=True)
        y = b.shuffle(b.concat(kept, b("Relu", b.conv(z, 12))), 2)
    return head(b, b("Relu", b.conv(y, 10)))


def excited_by_convs(b: ChannelsLast) -> str:
    """Squeeze and excitation: the means as a map of one pixel, through 1x1 convolutions."""
    x = b("Relu", b.conv("x", 8, kernel=3))
    s = b.reshape(b.mean(x, 1, 2, keep=0), 1, 1, 8)
    s = b("Sigmoid", b.conv(b("Relu", b.conv(s, 3)), 8))
    y = b("Mul", x, s)
    b.shape[y] = b.shape[x]
    return head(b, b.conv(y, 6))


def excited_by_dense(b: ChannelsLast) -> str:
    """The same with Dense layers on a vector, and on a map of one pixel."""
    y = b("Relu", b.conv("x", 8, kernel=3))
    for keep in (0, 1):
        s = b.mean(y, 1, 2, keep=keep)
        b.shape[s] = (1, 1, 8) if keep else (8,)
        s = b("Sigmoid", b.dense(b("Relu", b.dense(s, 3)), 8))
        z = b("Mul", y, s if keep else b.reshape(s, 1, 1, 8))
        b.shape[z] = b.shape[y]
        y = b.conv(z, 8)
    return head(b, y)


NETWORKS: dict[str, Callable[[ChannelsLast], str]] = {
    network.__name__: network
    for network in (convnext, dense_on_maps, shufflenet_v2, excited_by_convs, excited_by_dense)
}


def channels_last(name: str, batch: int | str = "N", **style: object) -> Model:
    """That network of `NETWORKS`: float32[N, 12, 10, 3] to class scores."""
    builder = ChannelsLast(batch, **style)  # type: ignore[arg-type]
    return builder.model(NETWORKS[name](builder))
