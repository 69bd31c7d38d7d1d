"""A swish written out becomes one Swish.

    Sigmoid -> Mul(x),  Mul(alpha) -> Sigmoid -> Mul(x),  Neg -> Exp -> Add(1) -> x / …   =>   Swish

x * sigmoid(alpha * x) (Ramachandran et al. 2017), called SiLU where alpha is 1; alpha 1.702 is the
sigmoid's approximation of GELU. It pays because the map is read and written once instead of two to
four times. Needs opset 24, so it skips where an operator of the model would change its meaning
there.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.algebra import Polynomial, origins, polynomial, same_polynomial, sources
from deploy.surgery.graph import producer
from deploy.surgery.region import between, bytes_saved, sole_use, type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)
# x * s, terms of x and s
_PRODUCT: Polynomial = {(1, 1): 1.0}
_ONE_PLUS: Polynomial = {(1,): 1.0, (0,): 1.0}


def recognize_swish(node: gs.Node) -> Replace | Skip | None:
    """Replace x * sigmoid(alpha * x), which this node ends, by Swish."""
    found = _swish(node)
    if isinstance(found, Skip) or found is None:
        return found
    x, alpha = found
    if x.dtype not in _DTYPES:
        return Skip(f"engines have Swish in float32 and float16, not {type_name(x)}")
    removed = sole_use(node, between(node, x))
    new = New("Swish", (x,), (node.outputs[0],), {"alpha": alpha})
    reason = f"x * sigmoid({alpha:g} * x) in {len(removed)} nodes is Swish"
    return Replace(removed, (new,), reason, bytes_saved(removed, x))


def _swish(node: gs.Node) -> tuple[gs.Tensor, float] | Skip | None:
    """x and alpha where the node computes x * sigmoid(alpha * x)."""
    if node.op == "Div":
        return _quotient(node)
    if node.op != "Mul":
        return None
    declined = None
    for gate in sources(node, ("Sigmoid",), depth=1):
        argument = producer(gate).inputs[0]  # type: ignore[union-attr]
        for x in origins(argument):
            if not same_polynomial(polynomial(node.outputs[0], (x, gate)), _PRODUCT, x.dtype):
                continue
            alpha = _slope(argument, x)
            if alpha is not None:
                return x, alpha
            declined = Skip("x * sigmoid(z) is Swish only where z is a multiple of x itself")
    return declined


def _quotient(node: gs.Node) -> tuple[gs.Tensor, float] | None:
    """x and alpha where the node computes x / (1 + exp(-alpha * x))."""
    x, total = node.inputs
    for power in sources(node, ("Exp",), depth=2):
        if not same_polynomial(polynomial(total, (power,)), _ONE_PLUS, total.dtype):
            continue
        slope = _slope(producer(power).inputs[0], x)  # type: ignore[union-attr]
        if slope is not None:
            return x, -slope
    return None


def _slope(argument: gs.Tensor, x: gs.Tensor) -> float | None:
    """alpha where the argument is alpha * x."""
    terms = polynomial(argument, (x,))
    return terms[1,] if terms is not None and set(terms) == {(1,)} else None
