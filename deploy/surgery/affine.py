"""Per-channel arithmetic with constants, y = scale * x + shift, as several fusions fold it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant
from deploy.surgery.rewrite import Skip

_ARITHMETIC = ("Mul", "Div", "Add", "Sub")


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift, float64, each a scalar or [channels]."""

    scale: np.ndarray
    shift: np.ndarray


def affine_input(node: gs.Node) -> int | None:
    """Which input carries the data; None when this isn't an affine node with constants."""
    if node.op == "BatchNormalization":
        return 0
    if node.op not in _ARITHMETIC or len(node.inputs) != 2:
        return None
    constants = [isinstance(value, gs.Constant) for value in node.inputs]
    if constants == [False, True]:
        return 0
    return 1 if constants == [True, False] and node.op != "Div" else None


def affine_of(
    node: gs.Node, data: int, channels: int, data_rank: int | None, axis: int = 1
) -> Affine | Skip:
    """What the node does to each of the channels, which lie along `axis` of its data."""
    if node.op == "BatchNormalization":
        return _batchnorm(node)
    values = np.asarray(node.inputs[1 - data].values, np.float64)
    factor = per_channel(values, channels, data_rank, axis)
    if factor is None:
        return Skip(f"the constant of {node.op}, {list(values.shape)}, is not one per channel")
    one, zero = np.float64(1), np.float64(0)
    if node.op == "Mul":
        return Affine(factor, np.asarray(zero))
    if node.op == "Div":
        if (factor == 0).any():
            return Skip("the constant of Div holds zeros")
        return Affine(1 / factor, np.asarray(zero))
    if node.op == "Add":
        return Affine(np.asarray(one), factor)
    return Affine(np.asarray(one), -factor) if data == 0 else Affine(np.asarray(-one), factor)


def per_channel(
    values: np.ndarray, channels: int, data_rank: int | None, axis: int = 1
) -> np.ndarray | None:
    """The constant as a scalar or [channels]; None when it varies over another axis."""
    if values.ndim == 0:
        return values
    if data_rank is None or values.ndim > data_rank:
        return None
    if values.size == 1:
        return values.reshape(())
    shape = (1,) * (data_rank - values.ndim) + values.shape
    if shape[axis] != channels or any(d != 1 for i, d in enumerate(shape) if i != axis):
        return None
    return values.reshape(channels)


def bias_of(layer: gs.Node, channels: int) -> np.ndarray | Skip:
    """The bias of a Conv, ConvTranspose or Gemm (times its beta) as float64[channels]."""
    if len(layer.inputs) < 3 or layer.inputs[2].is_empty():
        return np.zeros(channels)
    bias = constant(layer.inputs[2])
    if bias is None:
        return Skip(f"the bias of {layer.op} is computed at run time")
    if bias.size != 1 and (bias.size != channels or bias.shape[-1] != channels):
        return Skip(f"the bias of {layer.op}, {list(bias.shape)}, is not one per channel")
    flat = np.broadcast_to(bias.astype(np.float64).reshape(-1), (channels,))
    return np.asarray(flat * float(layer.attrs.get("beta", 1.0)))


def _batchnorm(node: gs.Node) -> Affine | Skip:
    # before opset 14 there is no attribute: more than one output means training
    if node.attrs.get("training_mode", 0) or len(node.outputs) > 1:
        return Skip("BatchNormalization is in training mode; export the model with eval()")
    parameters = [constant(value) for value in node.inputs[1:5]]
    if any(value is None for value in parameters):
        return Skip("the statistics of BatchNormalization are computed at run time")
    gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = gamma / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    return Affine(scale, beta - mean * scale)
