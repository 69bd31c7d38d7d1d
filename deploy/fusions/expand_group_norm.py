"""GroupNormalization as an instance normalization, for an engine that lacks it.

    GroupNormalization  =>  Reshape([N, G, -1]) -> InstanceNormalization -> Reshape(back) ->
                            Mul(scale) -> Add(bias)

It pays because TensorRT before 8.6 refuses a model with GroupNormalization, and has
InstanceNormalization. A target lists this or recognize_group_norm, never both.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant
from deploy.surgery.region import type_name
from deploy.surgery.rewrite import New, Replace, Skip


def expand_group_norm(node: gs.Node) -> Replace | Skip | None:
    """Write this GroupNormalization out."""
    if node.op != "GroupNormalization":
        return None
    x = node.inputs[0]
    if x.dtype != np.float32:
        return Skip(f"its statistics are float32 whatever its input is, here {type_name(x)}")
    sizes = list(x.shape or ())
    free = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
    if len(sizes) < 3 or [axis for axis in free if axis != 0][1:] or 1 in free:
        return Skip(f"the shape {sizes} has to be known, but for the batch and one more axis")
    channels, groups = int(sizes[1]), int(node.attrs["num_groups"])
    scale, bias = constant(node.inputs[1]), constant(node.inputs[2])
    if scale is None or bias is None:
        return Skip("the scale and bias are computed at run time")
    # opset 18, since withdrawn, had one scale per group
    repeats = channels // len(scale)
    spread = (channels, *(1,) * (len(sizes) - 2))
    # 0 copies the batch from the input, which both Reshapes have in front
    back = [0, *(-1 if axis in free else size for axis, size in enumerate(sizes) if axis)]
    ones, zeros = np.ones(groups, x.dtype), np.zeros(groups, x.dtype)
    attrs = {"epsilon": float(node.attrs.get("epsilon", 1e-5))}
    grouped, normal, map_, scaled = (gs.Variable("", x.dtype) for _ in range(4))
    added = (
        New("Reshape", (x, np.array([0, groups, -1])), (grouped,)),
        New("InstanceNormalization", (grouped, ones, zeros), (normal,), attrs),
        New("Reshape", (normal, np.array(back)), (map_,)),
        New("Mul", (map_, scale.repeat(repeats).reshape(spread)), (scaled,)),
        New("Add", (scaled, bias.repeat(repeats).reshape(spread)), (node.outputs[0],)),
    )
    return Replace((node,), added, "GroupNormalization written with InstanceNormalization")
