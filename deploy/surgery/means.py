"""Means, as exporters spell them: ReduceMean, a sum over the count, axes kept or put back."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_graphsurgeon as gs

from deploy.surgery.algebra import close, scalar_operand
from deploy.surgery.graph import constant, producer, rank

_RESTORING = ("Unsqueeze", "Reshape")


def mean_of(tensor: gs.Tensor) -> tuple[gs.Tensor, tuple[int, ...]] | None:
    """x and the axes where the tensor is the mean of x, with the axes kept or put back."""
    found = mean(tensor, keepdims=True)
    if found is not None:
        return found
    node = producer(tensor)
    if node is None or node.op not in _RESTORING:
        return None
    found = mean(node.inputs[0], keepdims=False)
    return found if found is not None and restored(tensor, *found) is not None else None


def restored(tensor: gs.Tensor, x: gs.Tensor, axes: tuple[int, ...]) -> gs.Tensor | None:
    """What has the reduced axes of x put back, as size 1, in the tensor; None otherwise."""
    node = producer(tensor)
    if node is None or node.op not in _RESTORING or x.shape is None:
        return None
    wanted = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    left = [size for axis, size in enumerate(x.shape) if axis not in axes]
    source = node.inputs[0]
    # sizes in the order they were: a Reshape can only have put ones between
    fits = list(source.shape or ()) == left and same_shape(wanted, tensor.shape)
    return source if fits else None


def same_shape(one: Sequence[object], two: Sequence[object] | None) -> bool:
    """Whether two shapes with the same number of elements are equal."""
    if two is None or len(one) != len(two):
        return False
    unequal = [(a, b) for a, b in zip(one, two, strict=True) if a != b]
    # a single unknown size follows from the element count
    fixed = [a for a in one if isinstance(a, int)]
    return not unequal or (
        len(unequal) == 1
        and len(fixed) == len(one) - 1
        and not any(isinstance(d, int) for d in unequal[0])
    )


def mean(tensor: gs.Tensor, keepdims: bool) -> tuple[gs.Tensor, tuple[int, ...]] | None:
    """x and the axes where the tensor is the mean of x: ReduceMean, or ReduceSum over the count."""
    node = producer(tensor)
    if node is None:
        return None
    if node.op == "ReduceMean":
        axes = _axes(node, keepdims)
        return None if axes is None else (node.inputs[0], axes)
    operand = scalar_operand(node) if node.op in ("Mul", "Div") else None
    total = None if operand is None else producer(operand[0])
    axes = None if total is None or total.op != "ReduceSum" else _axes(total, keepdims)
    if operand is None or total is None or axes is None or (node.op, operand[2]) == ("Div", 0):
        return None
    count = _count(total.inputs[0], axes)
    factor = 1 / operand[1] if node.op == "Div" and operand[1] else operand[1]
    if count is None or not close(factor * count, 1.0, tensor.dtype):
        return None
    return total.inputs[0], axes


def _count(x: gs.Tensor, axes: tuple[int, ...]) -> int | None:
    """Over how many elements a reduction runs; None where a size is unknown."""
    if x.shape is None:
        return None
    sizes = [x.shape[axis] for axis in axes]
    return prod(sizes) if all(isinstance(size, int) for size in sizes) else None


def _axes(node: gs.Node, keepdims: bool) -> tuple[int, ...] | None:
    """The axes of a reduction that keeps them, or doesn't, in order; None for everything else."""
    if bool(node.attrs.get("keepdims", 1)) != keepdims:
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
