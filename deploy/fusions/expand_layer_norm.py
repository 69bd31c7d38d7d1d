"""LayerNormalization as the operators it is made of, for an engine that lacks it.

    LayerNormalization  =>  ReduceMean -> Sub -> Mul(itself) -> ReduceMean -> Add(eps) -> Sqrt ->
                            Div -> Mul(scale) [-> Add(bias)]

It pays because TensorRT before 8.6 refuses a model with LayerNormalization, while its compiler
joins these into few kernels. A target lists this or recognize_layer_norm, never both.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import is_output, rank
from deploy.surgery.norm_nodes import layer_norm_nodes
from deploy.surgery.region import type_name
from deploy.surgery.rewrite import Replace, Skip


def expand_layer_norm(node: gs.Node) -> Replace | Skip | None:
    """Write this LayerNormalization out."""
    if node.op != "LayerNormalization":
        return None
    x, scale = node.inputs[:2]
    dims = rank(x)
    if dims is None:
        return Skip("the rank of its input is unknown, so its axes are too")
    if x.dtype != np.float32:
        return Skip(f"its statistics are float32 whatever its input is, here {type_name(x)}")
    if any(tensor.outputs or is_output(tensor) for tensor in node.outputs[1:]):
        return Skip("its mean and deviation are asked for too")
    has_bias = len(node.inputs) > 2 and not node.inputs[2].is_empty()
    affine = (scale, node.inputs[2] if has_bias else None)
    axes = range(int(node.attrs.get("axis", -1)) % dims, dims)
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    added = layer_norm_nodes(x, affine, node.outputs[0], axes, epsilon)
    return Replace((node,), added, f"LayerNormalization written in {len(added)} nodes")
