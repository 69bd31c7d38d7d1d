"""A layer normalization written out becomes one LayerNormalization.

    ReduceMean -> Sub -> Pow(2) -> ReduceMean -> Add(eps) -> Sqrt -> Div [-> Mul -> Add]
    =>  LayerNormalization

The square may be a Mul, the root Reciprocal(Sqrt) or Pow(-1/2), the scale on either factor, and
the scale and bias may be missing. It pays because the map is read and written once instead of seven
times. Needs opset 17.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.algebra import scalar
from deploy.surgery.graph import constant, producer, rank
from deploy.surgery.region import between, bytes_saved, sole_reader, sole_use, type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)


@dataclass(frozen=True)
class _Normalized:
    """(x - mean) / sqrt(variance + epsilon) over `axes`; `scale` where the root was multiplied."""

    x: gs.Tensor
    axes: tuple[int, ...]
    epsilon: float
    scale: gs.Tensor | None = None


def recognize_layer_norm(node: gs.Node) -> Replace | Skip | None:
    """Replace the normalization that this Div or Mul ends, with the scale and bias behind it."""
    found = _normalized(node)
    if found is None:
        return None
    x, dtype = found.x, found.x.dtype
    if dtype not in _DTYPES:
        return Skip(
            f"LayerNormalization takes its statistics in float32, and this is {type_name(x)}"
        )
    dims = rank(x)
    if dims is None:
        return Skip("the rank of its input is unknown, so its axes are too; simplify first")
    first = min(found.axes)
    if found.axes != tuple(range(first, dims)):
        return Skip(f"it normalizes the axes {list(found.axes)} of {dims}, not the last ones")
    sizes = tuple(x.shape[first:])
    if not all(isinstance(size, int) for size in sizes):
        return Skip(f"the scale needs known sizes, and the axes have {list(sizes)}")
    scale = np.ones(sizes, dtype) if found.scale is None else _spread(found.scale, sizes, dims)
    if scale is None:
        return Skip("the scale varies over other axes than the normalized ones")
    end, scale, bias = _affine_behind(node, scale, sizes, dims)
    inputs = (x, scale) if bias is None else (x, scale, bias)
    attrs = {"axis": first - dims, "epsilon": found.epsilon}
    removed = sole_use(end, between(end, x))
    new = New("LayerNormalization", inputs, (end.outputs[0],), attrs)
    reason = f"{len(removed)} nodes are LayerNormalization over {list(sizes)}"
    return Replace(removed, (new,), reason, bytes_saved(removed, x))


def _normalized(node: gs.Node) -> _Normalized | None:
    if node.op == "Div":
        root = producer(node.inputs[1])
        return None if root is None else _over(node.inputs[0], _squared_root(root))
    if node.op != "Mul":
        return None
    for index in (0, 1):
        inverse, scale = _inverse(producer(node.inputs[index]))
        found = None if inverse is None else _over(node.inputs[1 - index], inverse, scale)
        if found is not None:
            return found
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


def _over(
    centred: gs.Tensor, v: gs.Tensor | None, scale: gs.Tensor | None = None
) -> _Normalized | None:
    """The normalization where `centred` is x - mean(x) and v its variance plus epsilon."""
    total = None if v is None else producer(v)
    start = _centred(centred)
    if total is None or total.op != "Add" or start is None:
        return None
    for index in (0, 1):
        epsilon = scalar(total.inputs[index], total.inputs[1 - index])
        mean = producer(total.inputs[1 - index])
        if epsilon is None or mean is None or _mean_axes(mean) != start[1]:
            continue
        square = _square(mean.inputs[0])
        # the exporter may have computed x - mean(x) twice
        if square is not None and (square is centred or _centred(square) == start):
            return _Normalized(*start, epsilon, scale)
    return None


def _centred(tensor: gs.Tensor) -> tuple[gs.Tensor, tuple[int, ...]] | None:
    """x and the axes where the tensor is x - mean(x)."""
    node = producer(tensor)
    mean = producer(node.inputs[1]) if node is not None and node.op == "Sub" else None
    axes = None if mean is None else _mean_axes(mean)
    if node is None or mean is None or axes is None or mean.inputs[0] is not node.inputs[0]:
        return None
    return node.inputs[0], axes


def _mean_axes(node: gs.Node) -> tuple[int, ...] | None:
    """The axes of a ReduceMean that keeps them, in order; None for everything else."""
    if node.op != "ReduceMean" or not node.attrs.get("keepdims", 1):
        return None
    if node.attrs.get("noop_with_empty_axes", 0):
        return None
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1 and not node.inputs[1].is_empty():
        axes = constant(node.inputs[1])
        if axes is None:
            return None
    dims = rank(node.inputs[0])
    if axes is None or len(axes) == 0:
        return None if dims is None else tuple(range(dims))
    # of unknown rank they stay as written: enough to compare two of them
    return tuple(sorted(int(axis) if dims is None else int(axis) % dims for axis in axes))


def _square(tensor: gs.Tensor) -> gs.Tensor | None:
    """t where the tensor is t * t."""
    node = producer(tensor)
    if node is not None and node.op == "Mul" and node.inputs[0] is node.inputs[1]:
        return node.inputs[0]
    if node is None or node.op != "Pow":
        return None
    # the exponent may be of any type
    exponent = scalar(node.inputs[1], node.inputs[0], "fi")
    return node.inputs[0] if exponent == 2.0 else None


def _affine_behind(
    node: gs.Node, scale: np.ndarray, sizes: tuple[int, ...], dims: int
) -> tuple[gs.Node, np.ndarray, np.ndarray | None]:
    """The last node of `* scale + bias` behind the normalization, the scale, and the bias."""
    end, bias = node, None
    behind = sole_reader(end.outputs[0])
    factor = _constant_of(behind, "Mul", end, sizes, dims)
    if behind is not None and factor is not None:
        end, scale = behind, np.asarray(scale * factor)
        behind = sole_reader(end.outputs[0])
    shift = _constant_of(behind, "Add", end, sizes, dims)
    if behind is not None and shift is not None:
        end, bias = behind, shift
    return end, scale, bias


def _constant_of(
    node: gs.Node | None, op: str, before: gs.Node, sizes: tuple[int, ...], dims: int
) -> np.ndarray | None:
    if node is None or node.op != op:
        return None
    others = [tensor for tensor in node.inputs if tensor is not before.outputs[0]]
    return _spread(others[0], sizes, dims) if len(others) == 1 else None


def _spread(tensor: gs.Tensor, sizes: tuple[int, ...], dims: int) -> np.ndarray | None:
    """A constant as an array of the normalized axes' sizes; None when it varies over others."""
    values = constant(tensor)
    if values is None or values.ndim > dims:
        return None
    own = values.shape[max(values.ndim - len(sizes), 0) :]
    fits = all(d in (1, s) for d, s in zip(reversed(own), reversed(sizes), strict=False))
    if not fits or values.size != np.prod(own):
        return None
    return np.ascontiguousarray(np.broadcast_to(values.reshape(own), sizes))
