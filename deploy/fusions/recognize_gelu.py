"""A GELU written out, with erf or tanh, becomes one Gelu.

    Div(sqrt 2) -> Erf -> Add(1) -> Mul(x) -> Mul(1/2)                          =>   Gelu
    x + 0.044715 x^3 -> Mul(sqrt(2/pi)) -> Tanh -> Add(1) -> Mul(x) -> Mul(1/2)   =>   Gelu(tanh)

Every order and spelling counts (Hendrycks and Gimpel 2016, section 2), by its coefficients. It pays
because the map is read and written once instead of five to nine times. Needs opset 20, so it skips
where an operator of the model would change its meaning there.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.algebra import Polynomial, origins, polynomial, same_polynomial, sources
from deploy.surgery.graph import producer
from deploy.surgery.region import between, bytes_saved, sole_use, type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)
# x/2 * (1 + f(...)), terms of x and f
_OUTER: Polynomial = {(1, 0): 0.5, (1, 1): 0.5}
_INNER: dict[str, Polynomial] = {
    "Erf": {(1,): 1 / sqrt(2)},
    "Tanh": {(1,): sqrt(2 / pi), (3,): 0.044715 * sqrt(2 / pi)},
}


def recognize_gelu(node: gs.Node) -> Replace | Skip | None:
    """Replace the product that this node ends by Gelu."""
    if node.op not in ("Mul", "Div", "Add"):
        return None
    found = _outer(node)
    if found is None:
        return None
    x, function = found
    dtype = node.outputs[0].dtype
    if dtype not in _DTYPES:
        return Skip(f"engines have Gelu in float32 and float16, not {type_name(node.outputs[0])}")
    inner = polynomial(function.inputs[0], (x,))
    if not same_polynomial(inner, _INNER[function.op], dtype):
        return Skip(f"x/2 * (1 + {function.op}(…)) is not GELU: the coefficients inside differ")
    removed = sole_use(node, between(node, x))
    attrs = {"approximate": "none" if function.op == "Erf" else "tanh"}
    new = New("Gelu", (x,), (node.outputs[0],), attrs)
    reason = f"{len(removed)} nodes around {function.op} are Gelu"
    return Replace(removed, (new,), reason, bytes_saved(removed, x))


def _outer(node: gs.Node) -> tuple[gs.Tensor, gs.Node] | None:
    """x and the Erf or Tanh where the node computes x/2 * (1 + f)."""
    for value in sources(node, tuple(_INNER)):
        function = producer(value)
        if function is None:
            continue
        for x in origins(function.inputs[0]):
            terms = polynomial(node.outputs[0], (x, value))
            if same_polynomial(terms, _OUTER, node.outputs[0].dtype):
                return x, function
    return None
