"""Which layers NVIDIA's DLA takes, and why not the others: the first generation (Xavier) and the
second (Orin).

Sources: include/NvInfer.h of TensorRT 8.5.2 and 10.3.0, what it says of "DLA" at each layer (both
say the same, but for SoftMax and padding on Xavier); NVIDIA's developer guide, "DLA Supported
Layers and Restrictions" (channels, groups, the convolution buffer); which ONNX operators become
such layers: NVIDIA/Deep-Learning-Accelerator-SW ea61780e, operators/README.md. An elementwise layer
that broadcasts is taken to run on the GPU. TensorRT itself may decide otherwise: it also looks at
how layers fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from types import MappingProxyType

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, rank

MOST_BATCH = 4096
MOST_LOADABLES = 16
_MOST = 8192
_BANKS = 16
_WINDOW = 8


def why_not_dla(node: gs.Node, generation: int, bytes_each: int) -> str | None:
    """Why a layer runs on the GPU; None where the DLA takes it.

    generation: 1 is Xavier's, 2 Orin's. bytes_each: 1 for INT8, 2 for fp16.
    """
    if list(node.subgraphs()):
        return "control flow"
    if node.op == "GlobalAveragePool":
        return _whole_average(node)
    check = _CHECKS.get(node.op)
    if check is None:
        return f"the DLA has no {node.op}"
    large = _too_large(node)
    if large is not None:
        return large
    if node.op == "Conv":
        return _convolution(node) or _buffer(node, bytes_each)
    if node.op == "AveragePool":
        return _pooling(node) or (_padded(node) if generation == 1 else None)
    if node.op == "Softmax":
        return "Xavier's DLA has no softmax" if generation == 1 else _softmax(node)
    return check(node)


def is_layer(node: gs.Node) -> bool:
    """Whether TensorRT makes a layer of it that computes on floats; a shape's arithmetic, and what
    only passes a value on, is none."""
    if node.op in ("Identity", "Dropout", "Constant", "Shape", "Size"):
        return False
    kinds = [t.dtype for t in node.outputs if not t.is_empty()]
    return any(k is None or isinstance(k, int) or np.dtype(k).kind == "f" for k in kinds)


def _too_large(node: gs.Node) -> str | None:
    for tensor in (*node.inputs[:1], *node.outputs):
        sizes = tensor.shape or ()
        if len(sizes) > 4:
            return f"its values have {len(sizes)} dimensions; the DLA takes 4"
        known = [size for size in sizes[1:] if isinstance(size, int)]
        if any(size > _MOST for size in known):
            return f"a dimension of {max(known)}; the DLA takes up to {_MOST}"
        if sizes and isinstance(sizes[0], int) and sizes[0] > MOST_BATCH:
            return f"a batch of {sizes[0]}; the DLA takes up to {MOST_BATCH}"
    return None


def _geometry(node: gs.Node) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, strides, pads and dilations of a convolution or pool."""
    weight = list(node.inputs[1].shape) if len(node.inputs) > 1 else []
    kernel = [int(k) for k in node.attrs.get("kernel_shape", weight[2:])]
    strides = [int(s) for s in node.attrs.get("strides", [1] * len(kernel))]
    pads = [int(p) for p in node.attrs.get("pads", [0] * 2 * len(kernel))]
    dilations = [int(d) for d in node.attrs.get("dilations", [1] * len(kernel))]
    return kernel, strides, pads, dilations


def _outside(what: str, values: list[int], low: int, high: int) -> str | None:
    wrong = [value for value in values if not low <= value <= high]
    return f"{what} {wrong[0]}; the DLA takes {low} to {high}" if wrong else None


def _convolution(node: gs.Node) -> str | None:
    kernel, strides, pads, dilations = _geometry(node)
    if len(kernel) != 2:
        return f"{len(kernel)} spatial dimensions; the DLA takes 2"
    if constant(node.inputs[1]) is None:
        return "its weights are computed at run time"
    if any(pad >= kernel[index % 2] for index, pad in enumerate(pads)):
        return f"padding {max(pads)} isn't smaller than the kernel"
    maps = list(node.inputs[1].shape)[:1]
    return (
        _outside("kernel", kernel, 1, 32)
        or _outside("stride", strides, 1, 8)
        or _outside("padding", pads, 0, 31)
        or _outside("dilation", dilations, 1, 32)
        or _outside("output channels", maps, 1, _MOST)
        or _outside("groups", [int(node.attrs.get("group", 1))], 1, _MOST)
    )


def _buffer(node: gs.Node, bytes_each: int) -> str | None:
    """The convolution buffer's 16 banks, as the developer guide computes them (TensorRT checks this
    from 8.6 on; what doesn't fit failed in the DLA's compiler before)."""
    kernel, _, _, dilations = _geometry(node)
    shape = list(node.inputs[0].shape or [])
    if len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        return None
    channels, width = shape[1], shape[3]
    one = ceil(channels * kernel[0] * kernel[1] * bytes_each / 128) * 128
    slices = ceil(ceil(channels * bytes_each / 32) * width / 4)
    height = (kernel[0] - 1) * dilations[0] + 1
    banks = ceil(one / 32768) + ceil(slices * height / 256)
    if banks <= _BANKS:
        return None
    return f"its input and weights take {banks} banks of the convolution buffer's {_BANKS}"


def _deconvolution(node: gs.Node) -> str | None:
    kernel, strides, pads, dilations = _geometry(node)
    if len(kernel) != 2:
        return f"{len(kernel)} spatial dimensions; the DLA takes 2"
    if int(node.attrs.get("group", 1)) != 1:
        return "a grouped deconvolution"
    if any(pads) or any(node.attrs.get("output_padding", ())):
        return "a padded deconvolution"
    return (
        _outside("dilation", dilations, 1, 1)
        or _outside("kernel", kernel, 1, 32)
        or _outside("stride", strides, 1, 32)
    )


def _pooling(node: gs.Node) -> str | None:
    kernel, strides, pads, dilations = _geometry(node)
    if len(kernel) != 2:
        return f"{len(kernel)} spatial dimensions; the DLA takes 2"
    return (
        _outside("window", kernel, 1, _WINDOW)
        or _outside("stride", strides, 1, 16)
        or _outside("padding", pads, 0, 7)
        or _outside("dilation", dilations, 1, 1)
    )


def _whole_average(node: gs.Node) -> str:
    """onnx-tensorrt makes a reduction of it (7583da4c, builtin_op_importers.cpp)."""
    window = [size for size in (node.inputs[0].shape or ())[2:] if isinstance(size, int)]
    said = "TensorRT's parser makes a reduction of a GlobalAveragePool, which the DLA lacks"
    if len(window) == 2 and max(window) <= _WINDOW:
        return f"{said}; as an AveragePool of {window[0]}x{window[1]} it would run there"
    return said


def _padded(node: gs.Node) -> str | None:
    pads = any(node.attrs.get("pads", ()))
    excluded = not int(node.attrs.get("count_include_pad", 0))
    return "Xavier's DLA counts the padding into an average" if pads and excluded else None


def _clip(node: gs.Node) -> str | None:
    bounds = [constant(t) for t in node.inputs[1:] if not t.is_empty()]
    if len(bounds) != 2 or any(b is None for b in bounds):
        return "clipped on one side, or to computed bounds"
    low, high = (float(np.asarray(b).reshape(-1)[0]) for b in bounds)
    if low != 0 or not 1 <= high <= 127:
        return f"clipped to {low:g} to {high:g}; the DLA takes 0 to between 1 and 127"
    return None


def _elementwise(node: gs.Node) -> str | None:
    """A sum of two maps, or with a constant: then it is a scale layer."""
    left, right = node.inputs[:2]
    for one, other in ((left, right), (right, left)):
        values = constant(one)
        if values is not None:
            return None if _scales(values.shape, other.shape) else "its constant isn't per channel"
    if left.shape is None or right.shape is None or list(left.shape) != list(right.shape):
        return f"broadcasts {_dims(right)} over {_dims(left)}"
    return None


def _scales(constant_shape: tuple[int, ...], shape: Sequence[object] | None) -> bool:
    """Whether a constant is one number, one per channel, or as large as the map."""
    sizes = list(constant_shape)
    while sizes and sizes[0] == 1:
        sizes.pop(0)
    return not sizes or (shape is not None and len(sizes) == len(shape) - 1)


def _dims(tensor: gs.Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape or ("?",))


def _concat(node: gs.Node) -> str | None:
    dims = rank(node.outputs[0]) or 4
    axis = int(node.attrs.get("axis", 1)) % dims
    if dims != 4 or axis != 1:
        return f"joins axis {axis}; the DLA joins channels"
    return None


def _slice(node: gs.Node) -> str | None:
    if rank(node.inputs[0]) != 4:
        return f"slices a value of rank {rank(node.inputs[0])}; the DLA takes 4"
    if any(constant(t) is None for t in node.inputs[1:] if not t.is_empty()):
        return "slices at positions computed at run time"
    axes = constant(node.inputs[3]) if node.op == "Slice" and len(node.inputs) > 3 else None
    if axes is not None and 0 in [int(a) % 4 for a in axes.reshape(-1)]:
        return "slices the batch"
    steps = constant(node.inputs[4]) if node.op == "Slice" and len(node.inputs) > 4 else None
    if steps is not None and np.any(steps != 1):
        return "slices in steps"
    return "splits the batch" if node.op == "Split" and node.attrs.get("axis", 0) == 0 else None


def _softmax(node: gs.Node) -> str | None:
    sizes = node.inputs[0].shape or ()
    axis = int(node.attrs.get("axis", -1)) % max(len(sizes), 1)
    known = all(isinstance(size, int) for size in sizes[1:])
    if axis == 0 or not known:
        return "over the batch, or a size that isn't known"
    others = [size for index, size in enumerate(sizes) if index not in (0, axis)]
    most = 1024 if any(size > 1 for size in others) else _MOST
    return _outside("softmax over", [int(sizes[axis])], 1, most)


def _shuffle(node: gs.Node) -> str | None:
    """Reshape, Flatten and Transpose: the batch stays where it is."""
    before, after = node.inputs[0].shape, node.outputs[0].shape
    if before is None or after is None:
        return "to a shape that isn't known"
    if node.op == "Transpose":
        order = list(node.attrs.get("perm", range(len(before))[::-1]))
        return "moves the batch" if order and order[0] != 0 else None
    same = before[:1] == after[:1] or not all(isinstance(d, int) for d in (before[0], after[0]))
    return None if same else "moves the batch"


def _resize(node: gs.Node) -> str | None:
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    before, after = node.inputs[0].shape or (), node.outputs[0].shape or ()
    if scales is None or not scales.size:
        pairs = list(zip(before[2:], after[2:], strict=False))
        if not pairs or not all(isinstance(size, int) for pair in pairs for size in pair):
            return "to a size that isn't known"
        factors = [new / old for old, new in pairs]
    else:
        factors = [float(s) for s in scales.reshape(-1)[2:]]
    most = 32 if node.attrs.get("mode", "nearest") == "nearest" else 4
    if any(factor != int(factor) or not 1 <= factor <= most for factor in factors):
        shown = " x ".join(f"{factor:g}" for factor in factors)
        return f"by {shown}; the DLA takes whole factors up to {most}"
    return None


def _multiply(node: gs.Node) -> str | None:
    if constant(node.inputs[1]) is None:
        return "both inputs are computed at run time"
    return None


def _prelu(node: gs.Node) -> str | None:
    return None if constant(node.inputs[1]) is not None else "its slope is computed at run time"


def _always(node: gs.Node) -> str | None:
    return None


_CHECKS: Mapping[str, Callable[[gs.Node], str | None]] = MappingProxyType(
    {
        **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "LeakyRelu", "BatchNormalization"), _always),
        **dict.fromkeys(("Abs", "LRN", "QuantizeLinear", "DequantizeLinear"), _always),
        **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min", "Sum"), _elementwise),
        **dict.fromkeys(("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"), _shuffle),
        **dict.fromkeys(("Slice", "Split"), _slice),
        **dict.fromkeys(("MaxPool", "AveragePool"), _pooling),
        **dict.fromkeys(("Gemm", "MatMul"), _multiply),
        "Conv": _convolution,
        "ConvTranspose": _deconvolution,
        "Clip": _clip,
        "Concat": _concat,
        "PRelu": _prelu,
        "Resize": _resize,
        "Softmax": _softmax,
    }
)
