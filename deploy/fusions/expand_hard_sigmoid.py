"""HardSigmoid as the operators it is made of, for an engine that fuses those and not it.

    HardSigmoid(alpha, beta)   =>   Mul(alpha) -> Add(beta) -> Clip(0, 1)

It pays in OpenVINO, whose CPU kernels take Mul, Add and Clip into the convolution in front, and
leave HardSigmoid as a pass of its own in the plain layout, with a reorder before and after. List it
after recognize_hard_swish; a target lists this or recognize_hard_sigmoid, never both.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.region import type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)


def expand_hard_sigmoid(node: gs.Node) -> Replace | Skip | None:
    """Write this HardSigmoid out."""
    if node.op != "HardSigmoid":
        return None
    x = node.inputs[0]
    if x.dtype not in _DTYPES:
        return Skip(f"only float32 and float16 are written out, and this is {type_name(x)}")
    alpha, beta, low, high = (
        np.asarray(value, x.dtype)
        for value in (node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5), 0, 1)
    )
    scaled, shifted = gs.Variable("", x.dtype, x.shape), gs.Variable("", x.dtype, x.shape)
    added = (
        New("Mul", (x, alpha), (scaled,)),
        New("Add", (scaled, beta), (shifted,)),
        New("Clip", (shifted, low, high), (node.outputs[0],)),
    )
    return Replace((node,), added, "HardSigmoid written with Mul, Add and Clip")
