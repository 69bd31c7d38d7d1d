"""Gelu as the operators it is made of, for an engine that lacks it.

    Gelu        =>  Div(sqrt 2) -> Erf -> Add(1) -> Mul(x) -> Mul(1/2)
    Gelu(tanh)  =>  Mul -> Mul -> Add -> Mul -> Mul -> Tanh -> Add(1) -> Mul(x) -> Mul(1/2)

It pays because TensorRT before 10 refuses a model with Gelu, while its compiler joins these into
one kernel. A target lists this or recognize_gelu, never both.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.region import type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)


def expand_gelu(node: gs.Node) -> Replace | Skip | None:
    """Write this Gelu out."""
    if node.op != "Gelu":
        return None
    x, y = node.inputs[0], node.outputs[0]
    if x.dtype not in _DTYPES:
        return Skip(f"only float32 and float16 are written out, and this is {type_name(x)}")

    def number(value: float) -> np.ndarray:
        return np.asarray(value, x.dtype)

    def fresh() -> gs.Variable:
        return gs.Variable("", x.dtype, x.shape)

    if node.attrs.get("approximate", "none") == "tanh":
        argument, inner = _cubic(x, number, fresh)
        function = "Tanh"
    else:
        argument, function = fresh(), "Erf"
        inner = [New("Div", (x, number(sqrt(2))), (argument,))]
    value, plus, half = fresh(), fresh(), fresh()
    outer = [
        New(function, (argument,), (value,)),
        New("Add", (value, number(1)), (plus,)),
        New("Mul", (x, plus), (half,)),
        New("Mul", (half, number(0.5)), (y,)),
    ]
    return Replace((node,), (*inner, *outer), f"Gelu written with {function}")


def _cubic(
    x: gs.Tensor, number: Callable[[float], np.ndarray], fresh: Callable[[], gs.Variable]
) -> tuple[gs.Variable, list[New]]:
    """sqrt(2/pi) * (x + 0.044715 x^3) without Pow, which is slow and loses bits in float16."""
    square, scaled, plus, product, argument = (fresh() for _ in range(5))
    return argument, [
        New("Mul", (x, x), (square,)),
        New("Mul", (square, number(0.044715)), (scaled,)),
        New("Add", (scaled, number(1)), (plus,)),
        New("Mul", (x, plus), (product,)),
        New("Mul", (product, number(sqrt(2 / pi))), (argument,)),
    ]
