"""A channel shuffle and the depthwise convolution behind it as one plugin kernel.

    Reshape -> Transpose -> Reshape -> Conv depthwise [-> Relu]   =>   ShuffleDepthwise
    the same between Q/DQ, int8 in and int8 out                   =>   Q -> ShuffleDepthwise -> DQ

The kernel reads the channels where they lie, so the shuffled map is neither written nor read:
2 x N x C x H x W elements and one launch less. Between Q/DQ the quantization moves in front of the
shuffle, where it rounds the same values, and the scales become attributes, as TensorRT asks of
plugins. Run it on the final graph: ONNX Runtime doesn't know the operator.

For OpenVINO's CPU targets it doesn't pay and isn't listed: OpenVINO hands an extension planes
(NCHW) where its own convolutions leave channels last, and puts a reordering on either side.
ShuffleNetV1 (CIFAR-10, all 16 pairs replaced), batch 1, one pinned thread, EPYC (Zen 5), OpenVINO
2026.4.1, interleaved: 2.4 ms against 0.93 in float32 (2.5-2.8x, up to 9x beside other work; 1.2 ms
of it are reorderings, 0.19 the kernels), 0.9 against 0.67 in bf16 (1.25-1.37x), 1.3 against 0.74 in
symmetric INT8 (1.62-1.87x): benchmarks/openvino_plugins.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.channels import channel_count
from deploy.surgery.graph import elements, itemsize, producer
from deploy.surgery.integers import Stored, scale_of, stored
from deploy.surgery.region import sole_reader, type_name
from deploy.surgery.rewrite import New, Replace, Skip
from deploy.surgery.shuffle_pattern import Shuffle, shuffle_before

_TYPES = ("float32", "float16")


@dataclass(frozen=True)
class _Front:
    """The shuffle in front of a convolution, and the Q/DQ between the two, where there are any."""

    shuffle: Shuffle
    quantize: gs.Node | None = None
    dequantize: gs.Node | None = None

    @property
    def between(self) -> tuple[gs.Node, ...]:
        return tuple(node for node in (self.quantize, self.dequantize) if node is not None)


@dataclass(frozen=True)
class _Back:
    """The Relu behind a convolution, if there is one, and the value that leaves."""

    relu: tuple[gs.Node, ...]
    y: gs.Tensor


def plugin_shuffle_depthwise(node: gs.Node) -> Replace | Skip | None:
    """Replace the shuffle that this depthwise Conv reads, and the Conv."""
    front = _front(node) if node.op == "Conv" else None
    if front is None or not _is_depthwise(node):
        return None
    parts = [stored(tensor) for tensor in node.inputs[1:] if not tensor.is_empty()]
    if any(part is None for part in parts):
        return Skip("the weights are computed at run time, or stored with zero points")
    weight, *rest = (part for part in parts if part is not None)
    refusal = _refusal(node, front, weight)
    if refusal is not None:
        return Skip(refusal)
    if weight.scale is not None:
        return _in_int8(node, front, weight, rest[0].values if rest else None)
    x, back = front.shuffle.x, _back(node)
    if front.between:
        return Skip("an INT8 map and float weights; the kernel takes both in INT8 or neither")
    if type_name(x) not in _TYPES:
        return Skip(f"the map is {type_name(x)}; the kernel takes {', '.join(_TYPES)} and int8")
    inputs = (x, weight.values, *(bias.values for bias in rest))
    new = New("ShuffleDepthwise", inputs, (back.y,), _attributes(node, front, back), "onnx_deploy")
    removed = (*front.shuffle.chain, node, *back.relu)
    return Replace(removed, (new,), _reason(front), _saved(x, itemsize(x)))


def _in_int8(
    node: gs.Node, front: _Front, weight: Stored, bias: np.ndarray | None
) -> Replace | Skip:
    """int8 in and int8 out: what the quantizer behind the Conv would write."""
    back, before = _back(node), producer(front.shuffle.x)
    source = before if before is not None and before.op == "DequantizeLinear" else None
    grids = [*front.between] or [source]
    scales = [None if grid is None else scale_of(grid) for grid in grids]
    after = sole_reader(back.y)
    y_scale = scale_of(after) if after is not None and after.op == "QuantizeLinear" else None
    if None in scales or len(set(scales)) != 1:
        return Skip("INT8 weights, but the map isn't int8 with one scale and without zero point")
    if after is None or y_scale is None:
        return Skip("INT8 goes in, but no int8 without zero point comes out, as the kernel gives")
    same = source if source is not None and scale_of(source) == scales[0] else None
    x, made = _integers(front, same)
    attributes = _attributes(node, front, back) | {"x_scale": scales[0], "y_scale": y_scale}
    zeros = np.zeros(len(weight.values), np.float32)
    # float weights on the integers' grid: not every TensorRT takes int8 constants for a plugin
    inputs = (
        *(x, weight.values, zeros if bias is None else bias.astype(np.float32)),
        np.asarray(weight.scale),
    )
    made.append(New("ShuffleDepthwise", inputs, (after.outputs[0],), attributes, "onnx_deploy"))
    removed = (*front.shuffle.chain, *front.between, node, *back.relu, after)
    return Replace(removed, tuple(made), f"{_reason(front)}, in INT8", _saved(front.shuffle.x, 1))


def _integers(front: _Front, source: gs.Node | None) -> tuple[gs.Tensor, list[New]]:
    """The int8 map in front of the shuffle, and the node that makes it where nothing does yet.

    source: the DequantizeLinear with the kernel's scale that the shuffled map comes out of.
    """
    x = front.shuffle.x
    if source is not None and (front.quantize is not None or front.dequantize is None):
        return source.inputs[0], []
    if front.quantize is None:
        return x, []
    int8 = gs.Variable("", np.dtype(np.int8), x.shape)
    inputs = (x, *front.quantize.inputs[1:])
    return int8, [New("QuantizeLinear", inputs, (int8,), front.quantize.attrs)]


def _front(node: gs.Node) -> _Front | None:
    """The shuffle a Conv reads, straight, through DequantizeLinear, or through Q/DQ."""
    shuffle = shuffle_before(node.inputs[0])
    if shuffle is not None:
        return _Front(shuffle)
    dequantize = producer(node.inputs[0])
    if dequantize is None or dequantize.op != "DequantizeLinear":
        return None
    shuffle = shuffle_before(dequantize.inputs[0])
    if shuffle is not None:
        return _Front(shuffle, None, dequantize)
    quantize = producer(dequantize.inputs[0])
    if quantize is None or quantize.op != "QuantizeLinear":
        return None
    shuffle = shuffle_before(quantize.inputs[0])
    return None if shuffle is None else _Front(shuffle, quantize, dequantize)


def _back(node: gs.Node) -> _Back:
    relu = sole_reader(node.outputs[0])
    if relu is not None and relu.op == "Relu":
        return _Back((relu,), relu.outputs[0])
    return _Back((), node.outputs[0])


def _is_depthwise(node: gs.Node) -> bool:
    count = channel_count(node.inputs[0]) or 0
    return count > 1 and int(node.attrs.get("group", 1)) == count


def _refusal(node: gs.Node, front: _Front, weight: Stored) -> str | None:
    """Why the kernel doesn't take this convolution, or why it wouldn't pay."""
    kernel, strides = weight.values.shape[2:], node.attrs.get("strides", [1, 1])
    pads = node.attrs.get("pads", [0] * 4)
    if front.shuffle.groups == 1:
        return "a shuffle of one group moves nothing"
    if weight.values.shape[0] != channel_count(node.inputs[0]):
        return f"{weight.values.shape[0]} filters on {channel_count(node.inputs[0])} channels"
    if tuple(kernel) not in ((3, 3), (5, 5)):
        return f"the kernel is {'x'.join(map(str, kernel))}; the plugin has 3x3 and 5x5"
    if tuple(strides) not in ((1, 1), (2, 2)):
        return f"strides {list(strides)}; the plugin has 1 and 2, the same both ways"
    if set(node.attrs.get("dilations", [1])) != {1}:
        return f"dilations {list(node.attrs['dilations'])}; the plugin has none"
    if node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return f"auto_pad {node.attrs['auto_pad']} leaves the pads open; write them out"
    if min(pads) < 0 or max(pads) > kernel[0] // 2:
        return f"pads {list(pads)}; the plugin has 0 to {kernel[0] // 2}"
    return None


def _attributes(node: gs.Node, front: _Front, back: _Back) -> dict[str, object]:
    return {
        "groups": front.shuffle.groups,
        "strides": list(node.attrs.get("strides", [1, 1])),
        "pads": list(node.attrs.get("pads", [0] * 4)),
        "activation": "Relu" if back.relu else "",
    }


def _reason(front: _Front) -> str:
    return f"the depthwise kernel reads the shuffle of {front.shuffle.groups} groups itself"


def _saved(x: gs.Tensor, size: int) -> int:
    """The shuffled map, written and read."""
    return 2 * size * (elements(x) or 0)
