"""Axis orders: what a Transpose does to shapes, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deploy.surgery.graph import rank

Order = tuple[int, ...]


def permutation(node: gs.Node) -> Order | None:
    """The axis order of a Transpose; None for other nodes and where the rank is unknown."""
    if node.op != "Transpose" or node.domain not in (None, "", "ai.onnx"):
        return None
    if "perm" in node.attrs:
        return tuple(int(axis) for axis in node.attrs["perm"])
    dimensions = rank(node.inputs[0])
    return None if dimensions is None else tuple(reversed(range(dimensions)))


def inverse(perm: Sequence[int]) -> Order:
    """The axis order that undoes this one."""
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def is_identity(perm: Sequence[int]) -> bool:
    """Whether every axis stays where it is."""
    return list(perm) == list(range(len(perm)))


def then(first: Sequence[int], second: Sequence[int]) -> Order:
    """One axis order for a Transpose by `first` followed by one by `second`."""
    return tuple(first[axis] for axis in second)


def only_relabels(perm: Sequence[int], shape: Sequence[object]) -> bool:
    """Whether a Transpose of this shape leaves every element where it is in memory."""
    moved = [axis for axis in perm if shape[axis] != 1]
    return moved == sorted(moved)


def in_order(shape: Sequence[Any] | None, perm: Sequence[int]) -> list[Any] | None:
    """The shape behind a Transpose."""
    return None if shape is None else [shape[axis] for axis in perm]


def data_bytes(tensor: gs.Tensor) -> int:
    """How many bytes a value has per sample; 0 for unknown shapes or types."""
    if tensor.dtype is None or tensor.shape is None:
        return 0
    number = isinstance(tensor.dtype, int)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.dtype) if number else tensor.dtype
    # as graph.elements, but called so often that NumPy would be slow
    size = math.prod(d for d in tensor.shape if isinstance(d, int) and d > 0)
    return size * int(np.dtype(dtype).itemsize)
