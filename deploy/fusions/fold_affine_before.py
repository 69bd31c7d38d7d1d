"""A per-channel scale and shift disappears into the layer behind it.

    BatchNormalization|Mul|Div|Add|Sub (constant) -> Conv|ConvTranspose|Gemm|MatMul
    =>  Conv|ConvTranspose|Gemm|MatMul with other weights and bias

With a*x + b per input channel: W' = a*W, bias' = bias + sum(W*b), folded in float64. It pays
because the affine node reads and writes the whole map once more. A layer's padding is zero, not
shifted, so a shift only folds where nothing is padded; a scale always does. A MatMul takes a
shift where a constant Add follows it. A target lists it after the fusions that recognize norms
and activations: the Div of a spelled-out HardSwish folds too, and then nothing recognizes it.

With a*x + b the layer subtracts from each other what the affine node keeps small: W (a*x) and W*b,
each |b| times larger than their sum, where a*x + b is of the order of 1. |b| is then about the
mean of x over its spread, and the largest error of a float32 Conv over x was, against the largest
output: mean / spread 2: 2e-7, 98: 5.6e-6, 403: 2.7e-5, 2026: 1.2e-4. So |b| above 64 doesn't fold,
whether it comes from one node or from several in a row. Two scales are known to be those of images,
where x is much wider: 1 (0..255 less a mean of 124) and up to 256 from data of 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.affine import Affine, affine_input, affine_of, bias_of
from deploy.surgery.graph import constant, elements, itemsize, producer, rank
from deploy.surgery.representable import representable
from deploy.surgery.rewrite import New, Replace, Skip

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# how large a shift may be: where it may centre data of any spread, and where only the mean goes
_LARGEST_SHIFT = 64
_LARGEST_MEAN = 1024
# data of 0..1 on its way to 0..255
_IMAGE_SCALE = 256


@dataclass(frozen=True)
class _Folded:
    """What becomes of one layer (and the bias Add behind a MatMul)."""

    remove: tuple[gs.Node, ...]
    add: tuple[New, ...]


def fold_affine_before(node: gs.Node) -> Replace | Skip | None:
    """Fold what feeds this layer into it, and into all other layers that read the same value."""
    if node.op not in _LAYERS:
        return None
    front = producer(node.inputs[0])
    data = None if front is None else affine_input(front)
    if front is None or data is None:
        return None
    readers = list(front.outputs[0].outputs)
    # with another kind of reader the driver refuses and names it
    layers = readers if all(reader.op in _LAYERS for reader in readers) else [node]
    parts = []
    for layer in layers:
        part = _folded(layer, front, data)
        if isinstance(part, Skip):
            return part
        parts.append(part)
    removed = tuple(old for part in parts for old in part.remove)
    added = tuple(new for part in parts for new in part.add)
    saved = 2 * (elements(front.outputs[0]) or 0) * itemsize(front.outputs[0])
    names = ", ".join(dict.fromkeys(layer.op for layer in layers))
    return Replace((front, *removed), added, f"{front.op} folded into {names} behind it", saved)


def _folded(layer: gs.Node, front: gs.Node, data: int) -> _Folded | Skip:
    weight = constant(layer.inputs[1])
    if weight is None:
        return Skip(f"the weights of {layer.op} are computed at run time")
    refusal = _refusal(layer, weight, front.outputs[0])
    if refusal is not None:
        return Skip(refusal)
    affine = _affine(layer, front, data, _input_channels(layer, weight))
    if isinstance(affine, Skip):
        return affine
    cancels = _cancels(layer, weight, front)
    if cancels is not None:
        return Skip(cancels)
    if affine.shift.any():
        return _with_shift(layer, front.inputs[data], weight, affine)
    folded = _scaled(layer, weight, affine.scale)
    if isinstance(folded, Skip):
        return folded
    inputs = (front.inputs[data], folded, *layer.inputs[2:])
    return _Folded((layer,), (New(layer.op, inputs, tuple(layer.outputs), layer.attrs),))


def _refusal(layer: gs.Node, weight: np.ndarray, value: gs.Tensor) -> str | None:
    if weight.dtype.kind in "iu":
        return f"{layer.op} computes in {weight.dtype}, where a folded scale would be rounded"
    if layer.op == "MatMul" and weight.ndim != 2:
        return f"the weights of MatMul, {list(weight.shape)}, are not a matrix"
    if layer.op == "Gemm" and layer.attrs.get("transA", 0):
        return "Gemm reads its input transposed"
    if any(other is value for other in layer.inputs[2:]):
        return f"{layer.op} also adds {value.name!r}"
    return None


def _input_channels(layer: gs.Node, weight: np.ndarray) -> int:
    if layer.op == "Conv":
        return int(weight.shape[1]) * int(layer.attrs.get("group", 1))
    return int(weight.shape[1] if layer.attrs.get("transB", 0) else weight.shape[0])


def _affine(layer: gs.Node, front: gs.Node, data: int, channels: int) -> Affine | Skip:
    """What happens to each input channel of the layer."""
    source = front.inputs[data]
    known = rank(source)
    axis = 1
    if layer.op == "MatMul" and front.op == "BatchNormalization" and known != 2:
        return Skip("BatchNormalization scales axis 1, and MatMul sums over the last")
    if layer.op == "MatMul" and known is not None:
        axis = known - 1
    elif layer.op != "MatMul" and known is None:
        known = _rank_from_layer(layer, front, data)
    affine = affine_of(front, data, channels, known, axis)
    if isinstance(affine, Skip) or front.op == "BatchNormalization":
        return affine
    varies = max(affine.scale.ndim, affine.shift.ndim) > 0
    if varies and (source.shape is None or source.shape[axis] != channels):
        return Skip(f"{front.op} may also broadcast {source.name!r} to {channels} channels")
    return affine


def _cancels(layer: gs.Node, weight: np.ndarray, front: gs.Node) -> str | None:
    """Why the layer would subtract large numbers from each other; None where it wouldn't.

    What is in front of `front` counts as well: it is the next to be folded.
    """
    if _where_the_shift_varies(layer, weight) or (layer.op == "MatMul" and not _bias_add(layer)):
        return None  # no shift will ever be folded
    scale, shift = np.ones(()), np.zeros(())
    node: gs.Node | None = front
    while node is not None and (index := affine_input(node)) is not None:
        found = _affine(layer, node, index, _input_channels(layer, weight))
        if isinstance(found, Skip):
            return None
        scale, shift = np.asarray(scale * found.scale), np.asarray(scale * found.shift + shift)
        size, limit = np.abs(shift), _shift_limit(scale, shift)
        if (size > limit).any():
            at = np.argmax(np.where(size > limit, size, 0))
            worst, allowed = (np.broadcast_to(v, size.shape).flat[at] for v in (size, limit))
            return (
                f"a shift of {worst:.6g}, more than {allowed:.0f}, would cancel in the sums of "
                f"{layer.op}: {node.op} centres data whose mean is large against its spread"
            )
        node = producer(node.inputs[index])
    return None


def _shift_limit(scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The largest shift that folds, per channel; see the module."""
    image = (np.abs(shift) <= np.abs(scale)) & (np.abs(scale) <= _IMAGE_SCALE)
    limit = np.where(image, _IMAGE_SCALE, _LARGEST_SHIFT)
    return np.where(np.abs(scale) == 1, _LARGEST_MEAN, limit)


def _rank_from_layer(layer: gs.Node, front: gs.Node, data: int) -> int | None:
    """The rank of data of unknown shape: what the layer takes, if the constant has less."""
    layer_rank = len(layer.inputs[1].shape)
    return layer_rank if len(front.inputs[1 - data].shape) < layer_rank else None


def _with_shift(
    layer: gs.Node, source: gs.Tensor, weight: np.ndarray, affine: Affine
) -> _Folded | Skip:
    varies = _where_the_shift_varies(layer, weight)
    if varies is not None:
        return Skip(varies)
    extra = _through(layer, weight, affine.shift)
    add = _bias_add(layer) if layer.op == "MatMul" else None
    if layer.op == "MatMul" and add is None:
        return Skip("no Add of a constant behind MatMul takes the shift")
    bias = _constant_side(add) if add is not None else bias_of(layer, len(extra))
    if isinstance(bias, Skip):
        return bias
    folded = _scaled(layer, weight, affine.scale)
    if isinstance(folded, Skip):
        return folded
    shifted = _finite(bias + extra, weight.dtype)
    if shifted is None:
        return Skip("the folded weights would not be finite")
    if add is None:
        attrs = {k: v for k, v in layer.attrs.items() if k != "beta"}
        new = New(layer.op, (source, folded, shifted), tuple(layer.outputs), attrs)
        return _Folded((layer,), (new,))
    product = gs.Variable("", layer.outputs[0].dtype, layer.outputs[0].shape)
    multiply = New("MatMul", (source, folded), (product,))
    plus = New("Add", (product, shifted), tuple(add.outputs))
    return _Folded((layer, add), (multiply, plus))


def _where_the_shift_varies(layer: gs.Node, weight: np.ndarray) -> str | None:
    """Why a constant per input channel isn't one per output channel; None when it is."""
    if layer.op in ("Gemm", "MatMul"):
        return None
    pointwise = all(size == 1 for size in weight.shape[2:])
    padded = any(layer.attrs.get("pads", ()))
    if layer.op == "ConvTranspose":
        grown = any(layer.attrs.get("output_padding", ())) or "output_shape" in layer.attrs
        strided = any(stride != 1 for stride in layer.attrs.get("strides", ()))
        exact = pointwise and not (grown or strided or padded)
        return None if exact else "a shift in front of ConvTranspose varies over its output"
    same = layer.attrs.get("auto_pad", "NOTSET").startswith("SAME") and not pointwise
    return "a shift doesn't reach the zeros that Conv pads with" if padded or same else None


def _bias_add(layer: gs.Node) -> gs.Node | None:
    """The Add of a constant that alone reads the layer."""
    readers = layer.outputs[0].outputs
    if len(readers) != 1 or readers[0].op != "Add":
        return None
    return readers[0] if affine_input(readers[0]) is not None else None


def _constant_side(add: gs.Node) -> np.ndarray:
    """The constant side of an Add, float64."""
    side = next(value for value in add.inputs if isinstance(value, gs.Constant))
    return np.asarray(side.values, np.float64)


def _scaled(layer: gs.Node, weight: np.ndarray, scale: np.ndarray) -> np.ndarray | Skip:
    """The weights, every input channel times its scale.

    They have to keep their digits per input channel too: a small scale may be for a large input.
    """
    factor = np.broadcast_to(scale, (_input_channels(layer, weight),))
    if layer.op == "Conv":
        # [M, C/group, ...]: output channels of group g read input channels g*C/group onwards
        group = int(layer.attrs.get("group", 1))
        grouped = weight.astype(np.float64).reshape(group, -1, *weight.shape[1:])
        shaped = factor.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))
        stored = representable(grouped * shaped, weight.dtype, (0, 1), (0, 2))
        return stored if isinstance(stored, Skip) else stored.reshape(weight.shape)
    axis = 1 if layer.attrs.get("transB", 0) else 0
    shape = [1] * weight.ndim
    shape[axis] = -1
    scaled = weight.astype(np.float64) * factor.reshape(shape)
    return representable(scaled, weight.dtype, (0,), (1,))


def _through(layer: gs.Node, weight: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What the layer makes of the shift alone, float64[output channels]."""
    value = np.broadcast_to(shift, (_input_channels(layer, weight),))
    wide = weight.astype(np.float64)
    group = int(layer.attrs.get("group", 1))
    parts = value.reshape(group, -1)
    if layer.op == "Conv":
        summed = wide.reshape(group, -1, weight.shape[1], int(np.prod(weight.shape[2:])))
        return np.asarray(np.einsum("gmck,gc->gm", summed, parts).reshape(-1))
    if layer.op == "ConvTranspose":
        taps = wide.reshape(group, -1, weight.shape[1])
        return np.asarray(np.einsum("gcm,gc->gm", taps, parts).reshape(-1))
    matrix = wide.T if layer.attrs.get("transB", 0) else wide
    return np.asarray(float(layer.attrs.get("alpha", 1.0)) * (value @ matrix))


def _finite(values: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    return cast if np.isfinite(cast).all() else None
