"""A dense layer of the last axis that an exporter wrote for rows: what Keras does with maps.

x [N, H, W, C] -> Reshape [N * H * W, C] -> MatMul -> [Add] -> Reshape [N, H, W, M]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, producer
from deploy.surgery.region import sole_reader

# Transpose, or MatMul and Add
_LONGEST = 2


@dataclass(frozen=True)
class Dense:
    """x [..., C] times weight [C, M] plus bias [M]; inside: the nodes in front of the last one."""

    x: gs.Tensor
    weight: np.ndarray
    bias: np.ndarray | None
    inside: tuple[gs.Node, ...] = ()


def behind_reshape(node: gs.Node) -> gs.Node | None:
    """The Reshape by which the shuffle or dense layer is known that may start at this one."""
    end = sole_reader(node.outputs[0]) if node.op == "Reshape" else None
    for _ in range(_LONGEST):
        if end is None or end.op not in ("Transpose", "MatMul", "Gemm", "Add"):
            return None
        end = sole_reader(end.outputs[0])
        if end is not None and end.op == "Reshape":
            return end
    return None


def dense_of_rows(last: gs.Node) -> Dense | None:
    """The layer that ends in this Reshape; None where it is something else."""
    behind = _maker(last.inputs[0])
    added = behind if behind is not None and behind.op == "Add" else None
    product = behind if added is None else _product_of(added)
    first = None if product is None else _maker(product.inputs[0])
    weight = None if product is None else _weight(product)
    if product is None or first is None or first.op != "Reshape" or weight is None:
        return None
    biases = [*product.inputs[2:], *([] if added is None else added.inputs)]
    biases = [v for v in biases if not v.is_empty() and v is not product.outputs[0]]
    x, y = first.inputs[0].shape, last.outputs[0].shape
    if None in (x, y) or [x[-1], y[-1]] != list(weight.shape) or not same_sizes(x[:-1], y[:-1]):
        return None
    bias = _bias(biases, weight.shape[1])
    if bias is None:
        return None
    inside = (first, product) if added is None else (first, product, added)
    return Dense(first.inputs[0], weight, bias if biases else None, inside)


def same_sizes(before: Sequence[object], after: Sequence[object]) -> bool:
    """Whether two shapes of as many elements are the same: one free size may have two names."""
    if len(before) != len(after):
        return False
    differ = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    return len(differ) <= 1 and not any(isinstance(size, int) for pair in differ for size in pair)


def _maker(value: gs.Tensor) -> gs.Node | None:
    """What makes a value that has one reader."""
    return producer(value) if sole_reader(value) is not None else None


def _product_of(added: gs.Node) -> gs.Node | None:
    """What the Add adds its constant to."""
    makers = [maker for value in added.inputs if (maker := _maker(value)) is not None]
    return makers[0] if len(makers) == 1 else None


def _weight(product: gs.Node) -> np.ndarray | None:
    """The constant [C, M] of a MatMul or Gemm; None where it scales, or has no such matrix."""
    attrs = product.attrs
    scaled = any(float(attrs.get(name, 1)) != 1 for name in ("alpha", "beta"))
    weight = constant(product.inputs[1]) if product.op in ("MatMul", "Gemm") else None
    if scaled or attrs.get("transA", 0) or weight is None or weight.ndim != 2:
        return None
    return weight.T if attrs.get("transB", 0) else weight


def _bias(values: Sequence[gs.Tensor], count: int) -> np.ndarray | None:
    """The sum [M] of what is added, zeros for nothing; None where it isn't one per column."""
    total = np.zeros(count)
    for found in map(constant, values):
        if found is None or (found.size != 1 and [found.size, found.shape[-1]] != [count, count]):
            return None
        total = total + found.reshape(-1).astype(np.float64)
    dtype = values[0].dtype if values else np.float32
    return total.astype(dtype)
