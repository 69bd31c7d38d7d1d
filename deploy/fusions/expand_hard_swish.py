"""HardSwish as the operators it is made of, for an engine that lacks it.

    HardSwish   =>   Mul(1/6) -> Add(0.5) -> Clip(0, 1) -> Mul(x)

It pays on NVIDIA's DLA, which has no HardSwish and would hand it, and both copies around it, to the
GPU, but has all of these. A target lists this or recognize_hard_swish, never both.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.region import type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)


def expand_hard_swish(node: gs.Node) -> Replace | Skip | None:
    """Write this HardSwish out."""
    if node.op != "HardSwish":
        return None
    x = node.inputs[0]
    if x.dtype not in _DTYPES:
        return Skip(f"only float32 and float16 are written out, and this is {type_name(x)}")
    sixth, half, low, high = (np.asarray(value, x.dtype) for value in (1 / 6, 0.5, 0, 1))
    scaled, shifted, gate = (gs.Variable("", x.dtype, x.shape) for _ in range(3))
    added = (
        New("Mul", (x, sixth), (scaled,)),
        New("Add", (scaled, half), (shifted,)),
        New("Clip", (shifted, low, high), (gate,)),
        New("Mul", (x, gate), (node.outputs[0],)),
    )
    return Replace((node,), added, "HardSwish written with Mul, Add and Clip")
