"""Mish as the operators it is made of, for an engine that lacks it.

    Mish   =>   Softplus -> Tanh -> Mul(x)

It pays because TensorRT before 10 refuses a model with Mish, while its compiler joins these into
one kernel. A target lists this or recognize_mish, never both.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.rewrite import New, Replace, Skip


def expand_mish(node: gs.Node) -> Replace | Skip | None:
    """Write this Mish out."""
    if node.op != "Mish":
        return None
    x = node.inputs[0]
    plus = gs.Variable("", x.dtype, x.shape)
    tanh = gs.Variable("", x.dtype, x.shape)
    added = (
        New("Softplus", (x,), (plus,)),
        New("Tanh", (plus,), (tanh,)),
        New("Mul", (x, tanh), (node.outputs[0],)),
    )
    return Replace((node,), added, "Mish written with Softplus and Tanh")
