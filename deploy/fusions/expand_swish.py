"""Swish as the operators it is made of, for an engine that lacks it.

    Swish(alpha)   =>   [Mul(alpha) ->] Sigmoid -> Mul(x)

It pays because TensorRT before 11 refuses a model with Swish, while its compiler joins these into
one kernel; ONNX Runtime 1.31 runs Swish in models of opset 24 alone. A target lists this or
recognize_swish, never both.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.region import type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)


def expand_swish(node: gs.Node) -> Replace | Skip | None:
    """Write this Swish out."""
    if node.op != "Swish":
        return None
    x, y = node.inputs[0], node.outputs[0]
    if x.dtype not in _DTYPES:
        return Skip(f"only float32 and float16 are written out, and this is {type_name(x)}")
    alpha = float(node.attrs.get("alpha", 1.0))
    scaled, gate = (gs.Variable("", x.dtype, x.shape) for _ in range(2))
    added = [
        New("Sigmoid", (x if alpha == 1.0 else scaled,), (gate,)),
        New("Mul", (x, gate), (y,)),
    ]
    if alpha != 1.0:
        added.insert(0, New("Mul", (x, np.asarray(alpha, x.dtype)), (scaled,)))
    return Replace((node,), tuple(added), "Swish written with Sigmoid")
