"""The pieces that a normalization written out is made of: means, squares, roots and what scales.

Exporters differ in the order and the operators, so each function takes every spelling of one piece
and gives what lies behind it, or None where the node is something else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.algebra import scalar
from deploy.surgery.graph import constant, producer, rank
from deploy.surgery.means import mean, mean_of, restored
from deploy.surgery.region import sole_reader


@dataclass(frozen=True)
class Normalized:
    """(x - mean) / sqrt(variance + epsilon) over `axes`; `scale` where the root was multiplied."""

    x: gs.Tensor
    axes: tuple[int, ...]
    epsilon: float
    scale: gs.Tensor | None = None


@dataclass(frozen=True)
class Quotient:
    """scale * top / sqrt(square + epsilon): how every normalization ends."""

    top: gs.Tensor
    square: gs.Tensor
    epsilon: float
    scale: gs.Tensor | None = None


def normalized(node: gs.Node) -> Normalized | None:
    """What the node normalizes by mean and variance; None when it does something else."""
    found = quotient(node)
    start = None if found is None else _centred(found.top)
    if found is None or start is None or not _is_variance(found.square, found.top, *start):
        return None
    return Normalized(*start, found.epsilon, found.scale)


def quotient(node: gs.Node) -> Quotient | None:
    """The quotient by a root that this Div or Mul ends; None when it ends something else."""
    if node.op == "Div":
        root = producer(node.inputs[1])
        return None if root is None else _over(node.inputs[0], _squared_root(root), None)
    if node.op != "Mul":
        return None
    for index in (0, 1):
        inverse, scale = _inverse(producer(node.inputs[index]))
        found = _over(node.inputs[1 - index], inverse, scale)
        if found is not None:
            return found
    return None


def _over(top: gs.Tensor, v: gs.Tensor | None, scale: gs.Tensor | None) -> Quotient | None:
    """The quotient where v is something plus epsilon."""
    total = None if v is None else producer(v)
    if total is None or total.op != "Add":
        return None
    for index in (0, 1):
        square = total.inputs[1 - index]
        epsilon = scalar(total.inputs[index], square)
        if epsilon is not None:
            return Quotient(top, square, epsilon, scale)
    return None


def _inverse(node: gs.Node | None) -> tuple[gs.Tensor | None, gs.Tensor | None]:
    """v and scale where the node computes scale / sqrt(v)."""
    if node is None:
        return None, None
    if node.op == "Mul":
        for index in (0, 1):
            inverse, scale = _inverse(producer(node.inputs[index]))
            factor = node.inputs[1 - index]
            if inverse is not None and scale is None and isinstance(factor, gs.Constant):
                return inverse, factor
        return None, None
    if node.op == "Pow" and scalar(node.inputs[1], node.inputs[0]) == -0.5:
        return node.inputs[0], None
    one_over = node.op == "Div" and scalar(node.inputs[0], node.inputs[1]) == 1.0
    root = producer(node.inputs[-1]) if one_over or node.op == "Reciprocal" else None
    return (None if root is None else _squared_root(root)), None


def _squared_root(node: gs.Node) -> gs.Tensor | None:
    """v where the node computes sqrt(v)."""
    half = node.op == "Pow" and scalar(node.inputs[1], node.inputs[0]) == 0.5
    return node.inputs[0] if node.op == "Sqrt" or half else None


def _centred(tensor: gs.Tensor) -> tuple[gs.Tensor, tuple[int, ...]] | None:
    """x and the axes where the tensor is x - mean(x)."""
    node = producer(tensor)
    found = mean_of(node.inputs[1]) if node is not None and node.op == "Sub" else None
    if node is None or found is None or found[0] is not node.inputs[0]:
        return None
    return found


def is_centred(tensor: gs.Tensor) -> bool:
    """Whether the tensor is some x - mean(x)."""
    return _centred(tensor) is not None


def _is_variance(
    tensor: gs.Tensor, centred: gs.Tensor, x: gs.Tensor, axes: tuple[int, ...]
) -> bool:
    """Whether the tensor is the variance of x, as mean((x - mean)^2) or mean(x^2) - mean^2."""
    found = mean_of(tensor)
    if found is not None and found[1] == axes:
        square = squared(found[0])
        # the exporter may have computed x - mean(x) twice
        return square is not None and (square is centred or _centred(square) == (x, axes))
    floored = _without_floor(tensor)
    if _is_difference_of_squares(floored, x, axes, keepdims=True):
        return True
    reduced = restored(tensor, x, axes)
    return reduced is not None and _is_difference_of_squares(
        _without_floor(reduced), x, axes, keepdims=False
    )


def _without_floor(tensor: gs.Tensor) -> gs.Tensor:
    """v where the tensor is max(v, 0), which JAX writes because mean(x^2) - mean^2 may round below
    zero; a variance is never negative."""
    node = producer(tensor)
    if node is not None and node.op == "Relu":
        return node.inputs[0]
    if node is not None and node.op == "Max" and len(node.inputs) == 2:
        for index in (0, 1):
            if scalar(node.inputs[index], node.inputs[1 - index]) == 0.0:
                return node.inputs[1 - index]
    return tensor


def _is_difference_of_squares(
    tensor: gs.Tensor, x: gs.Tensor, axes: tuple[int, ...], *, keepdims: bool
) -> bool:
    """Whether the tensor is mean(x^2) - mean(x)^2, with or without the axes of size 1."""
    node = producer(tensor)
    if node is None or node.op != "Sub":
        return False
    squares, root = mean(node.inputs[0], keepdims), squared(node.inputs[1])
    if squares is None or root is None or squares[1] != axes or squared(squares[0]) is not x:
        return False
    return mean(root, keepdims) == (x, axes)


def squared(tensor: gs.Tensor) -> gs.Tensor | None:
    """t where the tensor is t * t."""
    node = producer(tensor)
    if node is not None and node.op == "Mul" and node.inputs[0] is node.inputs[1]:
        return node.inputs[0]
    if node is None or node.op != "Pow":
        return None
    # the exponent may be of any type
    exponent = scalar(node.inputs[1], node.inputs[0], "fi")
    return node.inputs[0] if exponent == 2.0 else None


def last_axes(x: gs.Tensor, axes: tuple[int, ...]) -> tuple[int, ...] | str:
    """The sizes of the axes a normalization over the last ones runs over, or why it isn't one."""
    dims = rank(x)
    if dims is None:
        return "the rank of its input is unknown, so its axes are too; simplify first"
    first = min(axes)
    if axes != tuple(range(first, dims)):
        return f"it normalizes the axes {list(axes)} of {dims}, not the last ones"
    sizes = tuple(x.shape[first:])
    if not all(isinstance(size, int) for size in sizes):
        return f"the scale needs known sizes, and the axes have {list(sizes)}"
    return sizes


def constant_behind(
    end: gs.Node, op: str, sizes: tuple[int, ...], dims: int
) -> tuple[gs.Node, np.ndarray] | None:
    """The one node behind `end` and its constant, where it is this op with a constant that only
    varies over the last axes, of these sizes; None otherwise."""
    node = sole_reader(end.outputs[0])
    if node is None or node.op != op:
        return None
    others = [tensor for tensor in node.inputs if tensor is not end.outputs[0]]
    values = spread(others[0], sizes, dims) if len(others) == 1 else None
    return None if values is None else (node, values)


def spread(tensor: gs.Tensor, sizes: tuple[int, ...], dims: int) -> np.ndarray | None:
    """A constant as an array of the normalized axes' sizes; None when it varies over others."""
    values = constant(tensor)
    if values is None or values.ndim > dims:
        return None
    own = values.shape[max(values.ndim - len(sizes), 0) :]
    fits = all(d in (1, s) for d, s in zip(reversed(own), reversed(sizes), strict=False))
    if not fits or values.size != np.prod(own):
        return None
    return np.ascontiguousarray(np.broadcast_to(values.reshape(own), sizes))
