"""A strided first convolution of 8 bits reads an image where it lies: nothing is copied.

    DequantizeLinear -> Conv [O, C, kh, kw] -> Relu -> QuantizeLinear
      strides [t, s], of a quantized image [N, C, H, W]
    =>  DequantizeLinear -> Reshape to [N, C, H, W/g, g] -> Transpose to [N, g, C, H, W/g]
        -> Conv [p*O, g, C, kh, kw'], strides [1, t, 1] -> Relu -> QuantizeLinear
        -> Transpose to [N, 1, H', W'/p, p*O] -> Reshape to [N, H', W', O] -> Transpose

CPU engines compute with the channels innermost. Of an image with few of them they first make such
a copy, byte by byte. Here `g` neighbours in a row take the place of the channels (the least
multiple of the step `s` that fills the four bytes that VNNI's products add up), the colour planes
become a third axis that the kernel covers whole, and p = g/s neighbouring results take the place
of output channels. In memory that is how image and result lie already, channels innermost: the
Reshapes and Transposes only say so, and OpenVINO drops them. Weights are spread over the new taps,
zeros between them: the same sums of integers, so the same bits.

It pays while the products with those zeros cost less than the copy. OpenVINO, one core, 3x3 and
step 2 on 224x224, copy and convolution in us: 16 output channels 74 => 51, 24 102 => 72, 32
96 => 92, 64 145 => 181. Where a size is free it copies all the same: only for fixed ones. Run it
on the final graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.conversion import Conversion, dequantize, quantize
from deploy.surgery.first_conv import is_image, why_not_regrouped
from deploy.surgery.graph import constant, is_output, producer
from deploy.surgery.rewrite import New, Replace, Skip

# OpenVINO, first layers of 224x224 with a free batch or height: 3.2 to 4.2 times the time
FIXED_SIZES = True
# VNNI adds four products of bytes into each of the 16 sums in a vector
_ADDED, _SUMS = 4, 16
# value by value, without other inputs than numbers: they do the same to a map of any shape (an Elu
# rounds by place in OpenVINO)
_POINTWISE = ("Relu", "Clip", "HardSwish", "HardSigmoid", "LeakyRelu", "Sigmoid", "Tanh")
# what works on 8 bits, channels innermost; so do convolutions of 8 bits
_READ_AS_IT_LIES = ("Add", "MaxPool", "DequantizeLinear")


def columns_as_channels(node: gs.Node) -> Replace | Skip | None:
    """Let this quantized convolution read neighbouring columns of the image as channels."""
    quantized = producer(node.inputs[0]) if node.op == "Conv" else None
    if quantized is None or not _is_quantized_image(quantized):
        return None
    image = quantized.inputs[0]
    step_down, step = (int(n) for n in node.attrs.get("strides", (1, 1)))
    columns = math.lcm(step, _ADDED)
    refusal = why_not_regrouped(node, image, step, columns)
    if refusal is not None:
        return Skip(refusal)
    weights, bias = _weights(node), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if weights is None or (len(node.inputs) > 2 and bias is None):
        return Skip("its weights aren't constants of 8 bits around zero, with a constant bias")
    pads = [int(n) for n in node.attrs.get("pads", (0, 0, 0, 0))]
    taps = _Taps.of(weights.codes, pads, step, columns, image.shape[3])
    chain = _chain(node)
    refusal = taps.refusal(weights.codes.shape, step_down) or _why_copied((chain or [node])[-1])
    if refusal is not None:
        return Skip(refusal)
    pads_added = [0, pads[0], taps.ahead, 0, pads[2], taps.behind]
    attrs = {"strides": [1, step_down, 1], "pads": pads_added}
    added = _regrouped(node, taps, weights, bias, attrs)
    last, moved = _moved(added[-1].outputs[0], chain)
    end = (chain or [node])[-1].outputs[0]
    added += moved + _as_map(last, end, taps.width, weights.codes.shape[0])
    reason = f"{columns} columns of {image.shape[1]} planes read where they lie"
    return Replace((node, *chain), tuple(added), reason)


def _regrouped(
    node: gs.Node,
    taps: _Taps,
    weights: _Weights,
    bias: np.ndarray | None,
    attrs: Mapping[str, list[int]],
) -> list[New]:
    """The convolution over groups of columns, of an image that is only called something else."""
    image, floats = node.inputs[0], node.inputs[0].dtype
    name = f"{node.outputs[0].name}/columns_as_channels"
    kernel, sums = gs.Variable(f"{name}/kernel", floats), gs.Variable(name, floats)
    grouped, volume = (gs.Variable("", floats) for _ in range(2))
    split = np.asarray([0, 0, 0, -1, taps.codes.shape[1]], np.int64)
    biases = () if bias is None else (np.tile(bias, taps.results),)
    attrs = {"kernel_shape": list(taps.codes.shape[2:]), **attrs}
    return [
        New("Reshape", (image, split), (grouped,)),
        New("Transpose", (grouped,), (volume,), {"perm": [0, 4, 1, 2, 3]}),
        New("DequantizeLinear", weights.repeated(taps), (kernel,), {"axis": 0}),
        New("Conv", (volume, kernel, *biases), (sums,), attrs),
    ]


def _moved(sums: gs.Variable, chain: Sequence[gs.Node]) -> tuple[gs.Variable, list[New]]:
    """The chain behind the new sums, and its result."""
    added: list[New] = []
    for link in chain:
        out = gs.Variable("", link.outputs[0].dtype)
        added.append(New(link.op, (sums, *link.inputs[1:]), (out,), dict(link.attrs)))
        sums = out
    return sums, added


def _is_quantized_image(node: gs.Node) -> bool:
    """Whether the node gives back an input of the model that was rounded to 8 bits."""
    maker = producer(node.inputs[0]) if _restores(node) else None
    if maker is None:
        return False
    found = quantize(maker)
    return isinstance(found, Conversion) and is_image(maker.inputs[0])


@dataclass(frozen=True)
class _Weights:
    """codes: int8[O, C, kh, kw] around zero. scale: float32[O] or []. zero_point: of its shape."""

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray

    def repeated(self, taps: _Taps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What DequantizeLinear takes, for the spread weights."""
        times = taps.results if self.scale.ndim else 1
        found = [np.tile(x, times) if x.ndim else x for x in (self.scale, self.zero_point)]
        return taps.codes, found[0], found[1]


def _weights(node: gs.Node) -> _Weights | None:
    maker = producer(node.inputs[1])
    if maker is None or maker.op != "DequantizeLinear" or "block_size" in maker.attrs:
        return None
    found = [constant(value) for value in maker.inputs]
    if len(found) != 3 or any(value is None for value in found):
        return None
    codes, scale, zero_point = (np.asarray(value) for value in found)
    signed = codes.dtype == np.int8 and codes.ndim == 4 and not np.any(zero_point)
    per_output = scale.ndim == 0 or (scale.ndim == 1 and int(maker.attrs.get("axis", 1)) == 0)
    return _Weights(codes, scale, zero_point) if signed and per_output else None


@dataclass(frozen=True)
class _Taps:
    """Weights spread over groups of columns, and the columns of the result.

    codes: [results*O, columns, C, kh, groups]. width: columns of the result. results: neighbouring
    ones that one step gives. ahead, behind: groups of padding.
    """

    codes: np.ndarray
    width: int
    results: int
    ahead: int
    behind: int

    @classmethod
    def of(
        cls, codes: np.ndarray, pads: Sequence[int], step: int, columns: int, image_width: int
    ) -> _Taps:
        out, channels, height, width = codes.shape
        results = columns // step
        made = (image_width + pads[1] + pads[3] - width) // step + 1
        first = -pads[1] // columns
        count = (step * (results - 1) + width - 1 - pads[1]) // columns - first + 1
        spread = np.zeros((results, out, columns, channels, height, count), codes.dtype)
        for result in range(results):
            for column in range(width):
                group, place = divmod(step * result + column - pads[1], columns)
                spread[result, :, place, :, :, group - first] = codes[:, :, :, column]
        behind = made // results - 1 + count - image_width // columns + first
        shape = (results * out, columns, channels, height, count)
        return cls(spread.reshape(shape), made, results, -first, behind)

    def refusal(self, before: tuple[int, ...], step_down: int) -> str | None:
        """Why these taps don't pay, or can't be; None when they do."""
        if self.width % self.results:
            return f"its {self.width} columns don't divide into groups of {self.results}"
        out, channels, height, width = before
        columns, count = self.codes.shape[1], self.codes.shape[4]
        old = height * width * math.ceil(channels / _ADDED) * math.ceil(out / _SUMS)
        new = channels * height * count * (columns // _ADDED)
        new = math.ceil(new * math.ceil(self.results * out / _SUMS) / self.results)
        copied = channels * step_down * columns // self.results
        if new - old > copied:
            return f"{new - old} more products a column would cost more than {copied} bytes copied"
        return None


def _chain(node: gs.Node) -> list[gs.Node]:
    """What works on the result value by value, up to its rounding to 8 bits: vendors merge it into
    the convolution where it follows at once."""
    found: list[gs.Node] = []
    while len(readers := _readers((found or [node])[-1])) == 1:
        last = readers[0]
        if _rounds(last):
            found.append(last)
            # a rounding that is undone at once is what OpenVINO knows best
            back = _readers(last)
            return found + back if len(back) == 1 and _restores(back[0]) else found
        if last.op not in _POINTWISE or not all(_is_number(v) for v in last.inputs[1:]):
            return found
        found.append(last)
    return found


def _is_number(tensor: gs.Tensor) -> bool:
    """Whether this is one constant value, or a parameter left out."""
    values = constant(tensor)
    return tensor.is_empty() if values is None else values.size == 1


def _readers(node: gs.Node) -> list[gs.Node]:
    """Who reads the node's result; nobody where the model gives it out."""
    return [] if is_output(node.outputs[0]) else list(node.outputs[0].outputs)


def _rounds(node: gs.Node) -> bool:
    return isinstance(quantize(node), Conversion)


def _restores(node: gs.Node) -> bool:
    return isinstance(dequantize(node), Conversion)


def _why_copied(last: gs.Node) -> str | None:
    """Why the result would be copied behind its renaming, as was seen in OpenVINO; None else."""
    readers = _readers(last)
    if _rounds(last) or _restores(last):
        wrong = [reader for reader in readers if not _works_on_8_bits(reader)]
    else:
        wrong = readers if len(readers) != 1 or readers[0].op != "Conv" else []
    if not readers:
        return "its result is an output of the model"
    if wrong:
        found = ", ".join(sorted({reader.op for reader in wrong}))
        return f"its result is read by {found} in float, and would be copied for them"
    return None


def _works_on_8_bits(node: gs.Node) -> bool:
    maker = producer(node.inputs[1]) if node.op == "Conv" else None
    return node.op in _READ_AS_IT_LIES or (maker is not None and maker.op == "DequantizeLinear")


def _as_map(volume: gs.Variable, out: gs.Variable, width: int, channels: int) -> list[New]:
    """The result [N, p*O, 1, H', W'/p] as a map [N, O, H', W']."""
    last, named = (gs.Variable("", volume.dtype) for _ in range(2))
    shape = np.asarray([0, -1, width, channels], np.int64)
    return [
        New("Transpose", (volume,), (last,), {"perm": [0, 2, 3, 4, 1]}),
        New("Reshape", (last, shape), (named,)),
        New("Transpose", (named,), (out,), {"perm": [0, 3, 1, 2]}),
    ]
