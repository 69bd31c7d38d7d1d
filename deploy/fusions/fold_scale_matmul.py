"""A scale per column disappears into the weights of the MatMul in front of it.

    MatMul(x, constant) -> Mul|Div (constant per column)   =>   MatMul(x, other weights)

W' = W * scale, folded in float64. It pays because the Mul reads and writes the product again. With
a constant bias between the two, the bias is scaled as well. (What follows a Gemm: fold_affine.)
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.affine import Affine, affine_input, affine_of
from deploy.surgery.graph import constant, elements, producer, rank
from deploy.surgery.representable import representable
from deploy.surgery.rewrite import New, Replace, Skip


def fold_scale_matmul(node: gs.Node) -> Replace | Skip | None:
    """Fold this Mul or Div into the MatMul that feeds it, across a constant Add."""
    data = affine_input(node) if node.op in ("Mul", "Div") else None
    if data is None:
        return None
    front = producer(node.inputs[data])
    add = front if front is not None and front.op == "Add" else None
    product = front if add is None else _added_product(add)
    if product is None or product.op != "MatMul":
        return None
    weight = constant(product.inputs[1])
    if weight is None:
        return Skip("the weights of MatMul are computed at run time")
    if weight.dtype.kind in "iu":
        return Skip(f"MatMul computes in {weight.dtype}, where a folded scale would be rounded")
    if weight.ndim < 2:
        return Skip(f"the weights of MatMul, {list(weight.shape)}, have no columns")
    affine = _scale(node, data, product, int(weight.shape[-1]))
    if isinstance(affine, Skip):
        return affine
    return _folded(node, product, add, weight, affine.scale)


def _added_product(add: gs.Node) -> gs.Node | None:
    data = affine_input(add)
    return None if data is None else producer(add.inputs[data])


def _scale(node: gs.Node, data: int, product: gs.Node, columns: int) -> Affine | Skip:
    known = rank(product.outputs[0])
    return affine_of(node, data, columns, known, 0 if known is None else known - 1)


def _folded(
    node: gs.Node, product: gs.Node, add: gs.Node | None, weight: np.ndarray, scale: np.ndarray
) -> Replace | Skip:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = weight.astype(np.float64) * scale
    folded = representable(scaled, weight.dtype, (weight.ndim - 1,))
    if isinstance(folded, Skip):
        return folded
    saved = 2 * (elements(node.outputs[0]) or 0) * weight.dtype.itemsize
    reason = f"{node.op} folded into MatMul"
    if add is None:
        new = New("MatMul", (product.inputs[0], folded), (node.outputs[0],))
        return Replace((product, node), (new,), reason, saved)
    side = next(v.values for v in add.inputs if isinstance(v, gs.Constant))
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = (np.asarray(side, np.float64) * scale).astype(weight.dtype)
    if not np.isfinite(shifted).all():
        return Skip("the folded bias would not be finite")
    between = gs.Variable("", product.outputs[0].dtype, product.outputs[0].shape)
    multiply = New("MatMul", (product.inputs[0], folded), (between,))
    plus = New("Add", (between, shifted), (node.outputs[0],))
    return Replace((product, add, node), (multiply, plus), reason, saved)
