"""A per-channel scale and shift disappears into the layer in front of it.

    Conv|ConvTranspose|Gemm -> BatchNormalization|Mul|Div|Add|Sub (constant)
    =>  Conv|ConvTranspose|Gemm with other weights and bias

With y = a*x + b per output channel: W' = a*W, bias' = a*bias + b, folded in float64. It pays
because the affine node reads and writes the whole map again, and because INT8 needs the layer's
real output range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.graph import constant, elements, producer, rank
from deploy.rewrite import New, Replace, Skip

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_ARITHMETIC = ("Mul", "Div", "Add", "Sub")


@dataclass(frozen=True)
class _Affine:
    """y = scale * x + shift, float64, each a scalar or [channels]."""

    scale: np.ndarray
    shift: np.ndarray


def fold_affine(node: gs.Node) -> Replace | Skip | None:
    """Fold this node into the layer that feeds it."""
    data = _data_input(node)
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
    affine = _affine(node, data, channels, rank(node.inputs[data]))
    if isinstance(affine, Skip):
        return affine
    bias = _bias(layer, channels)
    if isinstance(bias, Skip):
        return bias
    with np.errstate(over="ignore", invalid="ignore"):
        folded = _scaled(layer, weight, affine.scale, channels)
        shifted = (bias * affine.scale + affine.shift).astype(weight.dtype)
    if not (np.isfinite(folded).all() and np.isfinite(shifted).all()):
        return Skip("the folded weights would not be finite")
    attrs = {k: v for k, v in layer.attrs.items() if k != "beta"}
    new = New(layer.op, (layer.inputs[0], folded, shifted), (node.outputs[0],), attrs)
    saved = 2 * (elements(node.outputs[0]) or 0) * weight.dtype.itemsize
    return Replace((layer, node), (new,), f"{node.op} folded into {layer.op}", saved)


def _data_input(node: gs.Node) -> int | None:
    """Which input carries the data; None when this isn't an affine node with constants."""
    if node.op == "BatchNormalization":
        return 0
    if node.op not in _ARITHMETIC or len(node.inputs) != 2:
        return None
    constants = [isinstance(value, gs.Constant) for value in node.inputs]
    if constants == [False, True]:
        return 0
    return 1 if constants == [True, False] and node.op != "Div" else None


def _affine(node: gs.Node, data: int, channels: int, data_rank: int | None) -> _Affine | Skip:
    if node.op == "BatchNormalization":
        return _batchnorm(node)
    values = np.asarray(node.inputs[1 - data].values, np.float64)
    factor = _per_channel(values, channels, data_rank)
    if factor is None:
        return Skip(f"the constant of {node.op}, {list(values.shape)}, is not one per channel")
    one, zero = np.float64(1), np.float64(0)
    if node.op == "Mul":
        return _Affine(factor, np.asarray(zero))
    if node.op == "Div":
        if (factor == 0).any():
            return Skip("the constant of Div holds zeros")
        return _Affine(1 / factor, np.asarray(zero))
    if node.op == "Add":
        return _Affine(np.asarray(one), factor)
    return _Affine(np.asarray(one), -factor) if data == 0 else _Affine(np.asarray(-one), factor)


def _batchnorm(node: gs.Node) -> _Affine | Skip:
    # before opset 14 there is no attribute: more than one output means training
    if node.attrs.get("training_mode", 0) or len(node.outputs) > 1:
        return Skip("BatchNormalization is in training mode; export the model with eval()")
    parameters = [constant(value) for value in node.inputs[1:5]]
    if any(value is None for value in parameters):
        return Skip("the statistics of BatchNormalization are computed at run time")
    gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = gamma / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    return _Affine(scale, beta - mean * scale)


def _per_channel(values: np.ndarray, channels: int, data_rank: int | None) -> np.ndarray | None:
    """The constant as a scalar or [channels]; None when it varies over another axis."""
    if values.ndim == 0:
        return values
    if data_rank is None or values.ndim > data_rank:
        return None
    if values.size == 1:
        return values.reshape(())
    shape = (1,) * (data_rank - values.ndim) + values.shape
    if shape[1] != channels or any(d != 1 for i, d in enumerate(shape) if i != 1):
        return None
    return values.reshape(channels)


def _channels(layer: gs.Node, weight: np.ndarray) -> int:
    """How many output channels the layer has."""
    if layer.op == "Conv":
        return int(weight.shape[0])
    if layer.op == "ConvTranspose":
        return int(weight.shape[1]) * int(layer.attrs.get("group", 1))
    return int(weight.shape[0] if layer.attrs.get("transB", 0) else weight.shape[1])


def _bias(layer: gs.Node, channels: int) -> np.ndarray | Skip:
    """The layer's bias as float64[channels]."""
    if len(layer.inputs) < 3 or layer.inputs[2].is_empty():
        return np.zeros(channels)
    bias = constant(layer.inputs[2])
    if bias is None:
        return Skip(f"the bias of {layer.op} is computed at run time")
    if bias.size != 1 and (bias.size != channels or bias.shape[-1] != channels):
        return Skip(f"the bias of {layer.op}, {list(bias.shape)}, is not one per channel")
    flat = np.broadcast_to(bias.astype(np.float64).reshape(-1), (channels,))
    return np.asarray(flat * float(layer.attrs.get("beta", 1.0)))


def _scaled(layer: gs.Node, weight: np.ndarray, scale: np.ndarray, channels: int) -> np.ndarray:
    """The weights, every output channel times its scale."""
    per_channel = np.broadcast_to(scale, (channels,))
    if layer.op == "ConvTranspose":
        # [C, M/group, ...]: input channels of group g make output channels g*M/group onwards
        group = int(layer.attrs.get("group", 1))
        grouped = weight.reshape(group, -1, *weight.shape[1:]).astype(np.float64)
        factor = per_channel.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))
        return np.asarray((grouped * factor).reshape(weight.shape).astype(weight.dtype))
    axis = 1 if layer.op == "Gemm" and not layer.attrs.get("transB", 0) else 0
    shape = [1] * weight.ndim
    shape[axis] = channels
    return np.asarray((weight * per_channel.reshape(shape)).astype(weight.dtype))
