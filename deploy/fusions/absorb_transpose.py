"""A Transpose disappears into what reads it: a Reshape, a Gemm, a weight.

    Transpose (only axes of size 1 move) -> Reshape|Flatten  =>  Reshape|Flatten
    Transpose of a matrix -> Gemm|MatMul                     =>  Gemm with transA or transB
    Transpose of a weight                                    =>  another weight

It pays because the Transpose reads and writes the whole value and computes nothing. What a Reduce
absorbs is `sink_transpose_rounding`, what a classifier does `absorb_transpose_rounding`.

Same bits in ONNX Runtime. transA and transB give them where no side is a vector and, for transA, at
most 128 products are added (2,000 seeded matrices); elsewhere they are left to the engine, which
absorbs them in its own kernels.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.axis_order import Order, data_bytes, only_relabels, permutation
from deploy.surgery.graph import constant, is_output, label, producer, rank
from deploy.surgery.rewrite import New, Replace, Skip

_FLATTENS = ("Flatten", "Reshape")
_SWAP = (1, 0)
# ONNX Runtime adds products in blocks, which are shorter when its first matrix is transposed
_BLOCK = 128


def absorb_transpose(node: gs.Node) -> Replace | Skip | None:
    """Take the Transpose in front of this node into it."""
    if node.op == "Transpose":
        return _weight(node)
    if node.op in _FLATTENS:
        return _flatten(node)
    if node.op in ("Gemm", "MatMul") and node.domain in (None, "", "ai.onnx"):
        return _matrix(node)
    return None


def _weight(node: gs.Node) -> Replace | None:
    values, perm = constant(node.inputs[0]), permutation(node)
    if values is None or perm is None:
        return None
    folded = gs.Constant("", np.ascontiguousarray(values.transpose(perm)))
    new = New("Constant", (), (node.outputs[0],), {"value": folded})
    saved = 2 * data_bytes(node.outputs[0])
    return Replace((node,), (new,), "Transpose of a constant", saved)


def _before(tensor: gs.Tensor) -> tuple[gs.Node, Order] | None:
    """The Transpose that gives this value, and its order."""
    source = producer(tensor)
    perm = None if source is None else permutation(source)
    return None if source is None or perm is None else (source, perm)


def _alone(tensor: gs.Tensor) -> bool:
    return len(tensor.outputs) == 1 and not is_output(tensor)


def _flatten(node: gs.Node) -> Replace | Skip | None:
    """A Reshape or Flatten of a Transpose that leaves the elements where they are."""
    before = _before(node.inputs[0])
    if before is None:
        return None
    transpose, perm = before
    source, value = transpose.inputs[0], node.inputs[0]
    if source.shape is None or not only_relabels(perm, source.shape):
        return None
    read = _same_split if node.op == "Flatten" else _target
    side = read(node, source.shape, perm)
    if isinstance(side, Skip):
        return side
    new = New(node.op, (source, *side), (node.outputs[0],), node.attrs)
    gone = (transpose, node) if _alone(value) else (node,)
    saved = 2 * data_bytes(value) if _alone(value) else 0
    return Replace(gone, (new,), f"{node.op} reads past the Transpose", saved)


def _same_split(node: gs.Node, shape: list[object], perm: Order) -> tuple[np.ndarray, ...] | Skip:
    """Nothing more for a Flatten that divides the same axes into rows and columns."""
    axis = int(node.attrs.get("axis", 1))
    axis += len(perm) if axis < 0 else 0
    rows = {a for a in perm[:axis] if shape[a] != 1}
    if rows != {a for a in range(axis) if shape[a] != 1}:
        return Skip(f"Flatten at axis {axis} would divide other axes")
    return ()


def _target(node: gs.Node, shape: list[object], perm: Order) -> tuple[np.ndarray, ...] | Skip:
    """The Reshape's target, without zeros that mean another dimension now."""
    target = constant(node.inputs[1])
    if target is None:
        return Skip("the target of Reshape is computed at run time")
    wanted = [int(size) for size in target]
    if node.attrs.get("allowzero", 0):
        return (np.asarray(wanted, np.int64),)
    for place, size in enumerate(wanted):
        if size != 0 or perm[place] == place:
            continue
        known = shape[perm[place]]
        if not isinstance(known, int):
            return Skip(f"the free dimension {known} moves, and Reshape copies it")
        wanted[place] = known
    return (np.asarray(wanted, np.int64),)


def _matrix(node: gs.Node) -> Replace | Skip | None:
    """A transposed matrix is what Gemm's transA and transB are for."""
    attrs = dict(node.attrs)
    inputs, gone = list(node.inputs), [node]
    for index, name in enumerate(("transA", "transB")):
        before = _before(node.inputs[index])
        if before is None or before[1] != _SWAP:
            continue
        if not _alone(node.inputs[index]):
            return Skip(f"{label(before[0])!r} is needed elsewhere too")
        attrs[name] = 1 - int(attrs.get(name, 0))
        inputs[index] = before[0].inputs[0]
        gone.append(before[0])
    if len(gone) == 1:
        return None
    if any(rank(value) != 2 for value in node.inputs[:2]):
        return Skip("MatMul of more dimensions has no transA")
    turned = node.inputs[0] is not inputs[0]
    otherwise = _adds_otherwise(node.outputs[0], inputs[0] if turned else None)
    if otherwise is not None:
        return Skip(otherwise)
    saved = sum(2 * data_bytes(transpose.outputs[0]) for transpose in gone[1:])
    new = New("Gemm", tuple(inputs), (node.outputs[0],), attrs)
    return Replace(tuple(gone), (new,), "Transpose into transA or transB of Gemm", saved)


def _adds_otherwise(product: gs.Tensor, turned: gs.Tensor | None) -> str | None:
    """Why transA or transB would add the products in another order; None when they wouldn't.

    turned: the first matrix as [K, M], where it is the one that is transposed.
    """
    sizes = list(product.shape or (None, None))
    if not all(isinstance(size, int) and size > 1 for size in sizes):
        return f"a product of {sizes} may be one with a vector, which adds in another order"
    summed = None if turned is None else turned.shape[0]
    if turned is not None and not (isinstance(summed, int) and summed <= _BLOCK):
        return f"transA adds {summed} products, more than {_BLOCK}, in another order"
    return None
