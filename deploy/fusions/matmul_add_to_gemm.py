"""A matrix product and its bias become one operator.

    MatMul(x [M,K], constant [K,N]) -> Add (constant per column)   =>   Gemm(x, W, bias)

It pays because the Add reads and writes the product once more, and because what folds into a Gemm
(BatchNormalization, Mul) then folds here too. Runtimes keep MatMul and Add for more dimensions,
where a Gemm would need two Reshapes: that isn't touched.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, elements, producer, rank
from deploy.surgery.rewrite import New, Replace, Skip


def matmul_add_to_gemm(node: gs.Node) -> Replace | Skip | None:
    """Turn this Add and the MatMul in front of it into a Gemm."""
    if node.op != "Add":
        return None
    products = [p for p in map(producer, node.inputs) if p is not None and p.op == "MatMul"]
    biases = [b for b in map(constant, node.inputs) if b is not None]
    if len(products) != 1 or len(biases) != 1:
        return None
    product, bias = products[0], biases[0]
    dimensions = rank(product.inputs[0])
    if dimensions is None:
        return Skip("the rank of MatMul's input is unknown")
    weight = constant(product.inputs[1])
    if dimensions != 2 or (weight is not None and weight.ndim != 2):
        return None
    if weight is None:
        return Skip("the weights of MatMul are computed at run time")
    if weight.dtype.kind != "f":
        return Skip(f"MatMul computes in {weight.dtype}, which few runtimes do in Gemm")
    columns = weight.shape[1]
    per_column = bias.size == 1 or (bias.size == columns == bias.shape[-1])
    if bias.ndim > 2 or not per_column:
        return Skip(f"the constant of Add, {list(bias.shape)}, is not one per column")
    shaped = np.broadcast_to(bias.reshape(-1), (columns,)).copy()
    new = New("Gemm", (product.inputs[0], product.inputs[1], shaped), (node.outputs[0],))
    saved = 2 * (elements(node.outputs[0]) or 0) * weight.dtype.itemsize
    return Replace((product, node), (new,), "MatMul and Add turned into Gemm", saved)
