"""A mish written out becomes one Mish.

    Softplus -> Tanh -> Mul(x),  Exp -> Add(1) -> Log -> Tanh -> Mul(x)   =>   Mish
    Where(x > 20, x, Softplus) -> Tanh -> Mul(x)   =>   Mish

It pays because the map is read and written once instead of three to five times. Mish, x *
tanh(softplus(x)), is an operator since opset 18, so it skips where an operator of the model would
change its meaning there.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.algebra import Polynomial, polynomial, same_polynomial, scalar
from deploy.surgery.graph import producer
from deploy.surgery.region import between, bytes_saved, sole_use, type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)
# from here on tanh(softplus(z)) and tanh(z) differ by less than 1e-12
_LINEAR_FROM = 10.0
_ONE_PLUS: Polynomial = {(1,): 1.0, (0,): 1.0}


def recognize_mish(node: gs.Node) -> Replace | Skip | None:
    """Replace x * tanh(softplus(x)) by Mish."""
    if node.op != "Mul":
        return None
    found = _factors(node)
    if found is None:
        return None
    x, argument = found
    if argument is not x:
        return Skip("x * tanh(softplus(z)) is Mish only where z is x itself")
    dtype = node.outputs[0].dtype
    if dtype not in _DTYPES:
        return Skip(f"engines have Mish in float32 and float16, not {type_name(node.outputs[0])}")
    removed = sole_use(node, between(node, x))
    new = New("Mish", (x,), (node.outputs[0],))
    reason = f"x * tanh(softplus(x)) in {len(removed)} nodes is Mish"
    return Replace(removed, (new,), reason, bytes_saved(removed, x))


def _factors(node: gs.Node) -> tuple[gs.Tensor, gs.Tensor] | None:
    """x and z where the node computes x * tanh(softplus(z)), in either order."""
    for index in (0, 1):
        tanh = producer(node.inputs[index])
        if tanh is not None and tanh.op == "Tanh":
            argument = _softplus(tanh.inputs[0])
            if argument is not None:
                return node.inputs[1 - index], argument
    return None


def _softplus(tensor: gs.Tensor) -> gs.Tensor | None:
    """z where the tensor is softplus(z) = log(1 + exp(z))."""
    node = producer(tensor)
    if node is None:
        return None
    if node.op == "Softplus":
        return node.inputs[0]
    if node.op == "Where":
        return _linear_above(node)
    total = producer(node.inputs[0]) if node.op == "Log" else None
    for term in () if total is None or total.op != "Add" else total.inputs:
        power = producer(term)
        if power is None or power.op != "Exp":
            continue
        if same_polynomial(polynomial(node.inputs[0], (term,)), _ONE_PLUS, tensor.dtype):
            return power.inputs[0]
    return None


def _linear_above(node: gs.Node) -> gs.Tensor | None:
    """z where the node is z > threshold ? z : softplus(z), as PyTorch's softplus is written."""
    above = producer(node.inputs[0])
    z = _softplus(node.inputs[2])
    if above is None or above.op != "Greater" or z is None:
        return None
    threshold = scalar(above.inputs[1], z)
    same = above.inputs[0] is z and node.inputs[1] is z
    return z if same and threshold is not None and threshold >= _LINEAR_FROM else None
