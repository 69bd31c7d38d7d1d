"""Layers as channels see them: which weights take up a factor or a constant of a channel, and how.

A maker stores its output channel times s by multiplying weights and bias; a reader undoes it by
dividing the weights that meet the channel. A maker stores its output plus d in its bias; a reader
takes W d out of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, is_output

STANDARD = (None, "", "ai.onnx")
# in float16 a factor would cost the weights another rounding
_EXACT = (np.float32, np.float64)


@dataclass(frozen=True)
class Layer:
    """A layer's input or output channels, and the slot of each: int64[C]."""

    node: gs.Node
    slots: np.ndarray


class Names:
    """Names that no tensor of the graph or of its nodes' bodies has."""

    def __init__(self, graph: gs.Graph) -> None:
        self._taken = set(_names(graph))

    def fresh(self, wanted: str) -> str:
        """`wanted`, with a number behind it where that is taken."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def layer_weights(node: gs.Node) -> np.ndarray | None:
    """The weights of a layer that can take up factors; None where it can't.

    Conv [M, C/g, ...], ConvTranspose of one group [C, M, ...], Gemm and MatMul of two axes. The
    channels of its data are axis 1. float32 or float64.
    """
    if node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.domain not in STANDARD:
        return None
    if len(node.inputs) < 2 or isinstance(node.inputs[0], gs.Constant):
        return None
    weights = constant(node.inputs[1])
    known = all(v.is_empty() or constant(v) is not None for v in node.inputs[2:])
    if weights is None or not known or weights.dtype not in _EXACT:
        return None
    if node.op == "ConvTranspose":
        return weights if int(node.attrs.get("group", 1)) == 1 else None
    if node.op == "Conv":
        return weights
    flat = weights.ndim == 2 and len(node.inputs[0].shape or ()) == 2
    return weights if flat and not node.attrs.get("transA", 0) else None


def scale_outputs(node: gs.Node, factors: np.ndarray, names: Names) -> None:
    """Multiply a layer's output channels: weights, and bias if it has one."""
    weights = _weights(node)
    _, axis = _axes(node)
    own_constant(node, 1, weights * _along(factors, axis, weights.ndim), names)
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        own_constant(node, 2, np.asarray(node.inputs[2].values) * factors, names)


def divide_inputs(node: gs.Node, factors: np.ndarray, names: Names) -> None:
    """Divide a layer's weights by the factor each of its input channels arrives with."""
    weights = _weights(node)
    group = int(node.attrs.get("group", 1)) if node.op == "Conv" else 1
    if group == 1:
        axis, _ = _axes(node)
        own_constant(node, 1, weights / _along(factors, axis, weights.ndim), names)
        return
    # output channel m of group g reads input channels g * C/group ...
    rows = np.repeat(factors.reshape(group, -1), weights.shape[0] // group, axis=0)
    wide = rows.reshape(*rows.shape, *[1] * (weights.ndim - 2))
    own_constant(node, 1, weights / wide, names)


def scale_offset(node: gs.Node, factors: np.ndarray, names: Names) -> None:
    """Multiply the constant of an Add or Sub, channel by channel."""
    index = next(i for i, v in enumerate(node.inputs) if isinstance(v, gs.Constant))
    rank = len(node.outputs[0].shape)
    values = np.asarray(node.inputs[index].values)
    wide = values.reshape([1] * (rank - values.ndim) + list(values.shape))
    own_constant(node, index, wide * _along(factors, 1, rank), names)


def add_to_bias(node: gs.Node, constants: np.ndarray, names: Names) -> None:
    """Add one constant per output channel; gives the layer a bias where it has none.

    A bias of another shape (a scalar, [1, N], [batch, 1]) becomes what the sum broadcasts to.
    """
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        own_constant(node, 2, np.asarray(node.inputs[2].values) + constants, names)
        return
    name = names.fresh(f"{node.outputs[0].name}/bias")
    bias = gs.Constant(name, constants.astype(_weights(node).dtype))
    if len(node.inputs) > 2:
        node.inputs[2] = bias
    else:
        node.inputs.append(bias)


def taken_back(node: gs.Node, shift: np.ndarray) -> np.ndarray:
    """float64[M]: what a constant per input channel adds to each output channel of a layer."""
    weights = _weights(node)
    group = int(node.attrs.get("group", 1)) if node.op == "Conv" else 1
    axis_in, axis_out = _axes(node)
    space = tuple(i for i in range(weights.ndim) if i not in (axis_in, axis_out))
    kernel = weights.astype(np.float64).sum(axis=space)
    kernel = kernel if axis_out == 0 else kernel.T
    rows = np.repeat(shift.reshape(group, -1), kernel.shape[0] // group, axis=0)
    return np.asarray((kernel * rows).sum(axis=1))


def absorbs_shift(node: gs.Node) -> bool:
    """Whether a layer can take a constant of its input back: bias allowed, nothing padded."""
    if not takes_bias(node):
        return False
    if node.op == "Gemm":
        return bool(node.attrs.get("alpha", 1.0) == 1.0)
    explicit = node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return explicit and not any(node.attrs.get("pads", ()))


def pads_zeros(node: gs.Node) -> bool:
    """Whether a convolution could take a constant back but for the zeros it pads its input with."""
    explicit = node.attrs.get("auto_pad", "NOTSET") == "NOTSET"
    return node.op == "Conv" and takes_bias(node) and explicit and any(node.attrs.get("pads", ()))


def takes_bias(node: gs.Node) -> bool:
    """Whether a layer's outputs can be given a constant each through its bias."""
    if layer_weights(node) is None or node.op in ("ConvTranspose", "MatMul"):
        return False
    return node.op == "Conv" or bool(node.attrs.get("beta", 1.0) == 1.0)


def own_constant(node: gs.Node, index: int, values: np.ndarray, names: Names) -> None:
    """Give a node other values for a constant, which it may have shared: then under a new name."""
    old = node.inputs[index]
    shared = len(old.outputs) > 1 or is_output(old)
    wanted = f"{node.outputs[0].name}/{'weight' if index == 1 else 'bias'}"
    name = names.fresh(wanted) if shared else old.name
    node.inputs[index] = gs.Constant(name, np.ascontiguousarray(values.astype(old.dtype)))


def _weights(node: gs.Node) -> np.ndarray:
    weights = layer_weights(node)
    assert weights is not None
    return weights


def _axes(node: gs.Node) -> tuple[int, int]:
    """Which axes of a layer's weights run over its input and its output channels."""
    first = node.op == "Conv" or (node.op == "Gemm" and bool(node.attrs.get("transB", 0)))
    return (1, 0) if first else (0, 1)


def _along(factors: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return factors.astype(np.float64).reshape([-1 if i == axis else 1 for i in range(rank)])


def _names(graph: gs.Graph) -> Iterable[str]:
    yield from (tensor.name for tensor in (*graph.inputs, *graph.outputs))
    for node in graph.nodes:
        yield from (tensor.name for tensor in (*node.inputs, *node.outputs))
        for body in node.subgraphs():
            yield from _names(body)
