"""A Transpose in front of a classifier disappears into the order of its weight's rows.

    Transpose -> Flatten|Reshape to [N, K] -> Gemm|MatMul    =>  the same with the weight's rows
                                                                 in the other order

The other half of `absorb_transpose`, and not to the bit: rows in another order add in another
order, at most 1e-6 of the largest output away (150 layers of up to 7,000 products). It pays because
the Transpose reads and writes the whole value and computes nothing; without it a network written
channels-last would keep one in front of its classifier.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.axis_order import data_bytes, inverse, permutation
from deploy.surgery.graph import constant, is_output, producer
from deploy.surgery.rewrite import New, Replace, Skip

_FLATTENS = ("Flatten", "Reshape")


def absorb_transpose_rounding(node: gs.Node) -> Replace | Skip | None:
    """Turn the rows of this layer's weight, where it reads a flattened Transpose."""
    if node.op not in ("Gemm", "MatMul") or node.domain not in (None, "", "ai.onnx"):
        return None
    flat = producer(node.inputs[0])
    if flat is None or flat.op not in _FLATTENS:
        return None
    transpose = producer(flat.inputs[0])
    perm = None if transpose is None else permutation(transpose)
    if transpose is None or perm is None or perm[0] != 0:
        return None
    sizes = (transpose.inputs[0].shape or [None, None])[1:]
    weight = constant(node.inputs[1])
    if weight is None:
        return Skip(f"the weights of {node.op} are computed at run time")
    if node.attrs.get("transA", 0) or weight.ndim != 2:
        return Skip(f"{node.op} doesn't multiply rows of a matrix")
    columns = bool(node.attrs.get("transB", 0))
    rows = weight.T if columns else weight
    if not all(isinstance(size, int) for size in sizes) or np.prod(sizes) != len(rows):
        return Skip(
            f"{flat.op} of {transpose.inputs[0].shape} isn't known to give [N, {len(rows)}]"
        )
    for value in (transpose.outputs[0], flat.outputs[0]):
        if len(value.outputs) != 1 or is_output(value):
            return Skip(f"{value.name!r} is needed in its order elsewhere too")
    split = rows.reshape(*(sizes[axis - 1] for axis in perm[1:]), -1)
    back = [axis - 1 for axis in inverse(perm)[1:]]
    moved = split.transpose(*back, len(back)).reshape(rows.shape)
    fresh = gs.Variable("", flat.outputs[0].dtype, flat.outputs[0].shape)
    reshaped = New(flat.op, (transpose.inputs[0], *flat.inputs[1:]), (fresh,), flat.attrs)
    inputs = (fresh, moved.T if columns else moved, *node.inputs[2:])
    new = New(node.op, inputs, (node.outputs[0],), node.attrs)
    saved = 2 * data_bytes(transpose.outputs[0])
    reason = f"Transpose into the rows of {node.op}'s weight"
    return Replace((transpose, flat, node), (reshaped, new), reason, saved)
