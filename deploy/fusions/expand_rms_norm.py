"""RMSNormalization as the operators it is made of, for an engine that lacks it.

    RMSNormalization  =>  Mul(itself) -> ReduceMean -> Add(eps) -> Sqrt -> Div -> Mul(scale)

It pays because TensorRT before 10.15 refuses a model with RMSNormalization, while its compiler
joins these into few kernels. A target lists this or recognize_rms_norm, never both.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import rank
from deploy.surgery.norm_nodes import rms_norm_nodes
from deploy.surgery.region import type_name
from deploy.surgery.rewrite import Replace, Skip


def expand_rms_norm(node: gs.Node) -> Replace | Skip | None:
    """Write this RMSNormalization out."""
    if node.op != "RMSNormalization":
        return None
    x, scale = node.inputs[:2]
    dims = rank(x)
    if dims is None:
        return Skip("the rank of its input is unknown, so its axes are too")
    for tensor in (x, scale):
        if tensor.dtype != np.float32:
            return Skip(f"its mean is float32 whatever its inputs are, here {type_name(tensor)}")
    axes = range(int(node.attrs.get("axis", -1)) % dims, dims)
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    added = rms_norm_nodes(x, scale, node.outputs[0], axes, epsilon)
    return Replace((node,), added, f"RMSNormalization written in {len(added)} nodes")
