"""A per-channel scale and shift disappears into the layer in front of it.

    Conv|ConvTranspose|Gemm -> BatchNormalization|Mul|Div|Add|Sub (constant)
    =>  Conv|ConvTranspose|Gemm with other weights and bias

With y = a*x + b per output channel: W' = a*W, bias' = a*bias + b, folded in float64. It pays
because the affine node reads and writes the whole map again, and because INT8 needs the layer's
real output range.

A BatchNormalization says what it leaves: a spread of gamma around beta. What it subtracts, the mean
times the scale, was rounded at its own size in the layer's output, and is rounded elsewhere once it
is folded. That shows in the output by one rounding, 2^-24, times subtracted / left: within 1e-5 up
to a ratio of 168, and no further does it fold.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.affine import Affine, affine_input, affine_of, bias_of
from deploy.surgery.graph import constant, elements, producer, rank
from deploy.surgery.representable import representable
from deploy.surgery.rewrite import New, Replace, Skip

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
# roundings that make a relative error of 1e-5 in float32: the same number of digits in any type
_MOST_ROUNDINGS = 1e-5 * 2**24


def fold_affine(node: gs.Node) -> Replace | Skip | None:
    """Fold this node into the layer that feeds it."""
    data = affine_input(node)
    if data is None:
        return None
    layer = producer(node.inputs[data])
    if layer is None or layer.op not in _LAYERS:
        return None
    weight = constant(layer.inputs[1])
    if weight is None:
        return Skip(f"the weights of {layer.op} are computed at run time")
    if weight.dtype.kind in "iu":
        return Skip(f"{layer.op} computes in {weight.dtype}, where a folded scale would be rounded")
    channels = _channels(layer, weight)
    # the layer's own rank: a constant of more dimensions would broadcast the output to its rank
    affine = affine_of(node, data, channels, rank(node.inputs[data]))
    if isinstance(affine, Skip):
        return affine
    cancels = _cancels(node, affine, layer, weight)
    if cancels is not None:
        return Skip(cancels)
    bias = bias_of(layer, channels)
    if isinstance(bias, Skip):
        return bias
    with np.errstate(over="ignore", invalid="ignore"):
        folded = _scaled(layer, weight, affine.scale, channels)
        shifted = (bias * affine.scale + affine.shift).astype(weight.dtype)
    if isinstance(folded, Skip):
        return folded
    if not np.isfinite(shifted).all():
        return Skip("the folded weights would not be finite")
    attrs = {k: v for k, v in layer.attrs.items() if k != "beta"}
    new = New(layer.op, (layer.inputs[0], folded, shifted), (node.outputs[0],), attrs)
    saved = 2 * (elements(node.outputs[0]) or 0) * weight.dtype.itemsize
    return Replace((layer, node), (new,), f"{node.op} folded into {layer.op}", saved)


def _channels(layer: gs.Node, weight: np.ndarray) -> int:
    """How many output channels the layer has."""
    if layer.op == "Conv":
        return int(weight.shape[0])
    if layer.op == "ConvTranspose":
        return int(weight.shape[1]) * int(layer.attrs.get("group", 1))
    return int(weight.shape[0] if layer.attrs.get("transB", 0) else weight.shape[1])


def _cancels(node: gs.Node, affine: Affine, layer: gs.Node, weight: np.ndarray) -> str | None:
    """Why the node leaves little of what it subtracts; None where it doesn't, or doesn't say."""
    if node.op != "BatchNormalization":
        return None
    gamma, beta = (np.abs(np.asarray(constant(v), np.float64)) for v in node.inputs[1:3])
    subtracted = np.abs(np.asarray(constant(node.inputs[2]), np.float64) - affine.shift)
    if layer.op == "Conv":
        # a pruned channel is its bias: no rounding there
        subtracted = subtracted * weight.reshape(len(weight), -1).any(1)
    left = float((gamma + beta).max(initial=0))
    if not (np.isfinite(subtracted).all() and (subtracted > _MOST_ROUNDINGS * left).any()):
        return None
    return (
        f"BatchNormalization subtracts {subtracted.max():.6g} and leaves about {left:.6g}: the "
        "digits that this cancels would be others once it is folded"
    )


def _scaled(
    layer: gs.Node, weight: np.ndarray, scale: np.ndarray, channels: int
) -> np.ndarray | Skip:
    """The weights, every output channel times its scale."""
    per_channel = np.broadcast_to(scale, (channels,))
    if layer.op == "ConvTranspose":
        # [C, M/group, ...]: input channels of group g make output channels g*M/group onwards
        group = int(layer.attrs.get("group", 1))
        grouped = weight.reshape(group, -1, *weight.shape[1:]).astype(np.float64)
        factor = per_channel.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))
        stored = representable(grouped * factor, weight.dtype, (0, 2))
        return stored if isinstance(stored, Skip) else stored.reshape(weight.shape)
    axis = 1 if layer.op == "Gemm" and not layer.attrs.get("transB", 0) else 0
    shape = [1] * weight.ndim
    shape[axis] = channels
    scaled = weight.astype(np.float64) * per_channel.reshape(shape)
    return representable(scaled, weight.dtype, (axis,))
