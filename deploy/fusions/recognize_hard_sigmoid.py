"""A hard sigmoid written out becomes one HardSigmoid, with the constants around it inside.

    Add(3) -> Clip(0, 6) -> Div(6),  Mul -> Add -> HardSigmoid, …   =>   HardSigmoid(alpha, beta)

Every chain that computes clip(alpha * x + beta, 0, 1) counts, whichever way ReLU6 is written, and
scalar Mul, Div, Add and Sub in front go into alpha and beta. It pays because the tensor is read and
written once. Not for OpenVINO, which fuses the pieces but not the operator (expand_hard_sigmoid).
List it after recognize_hard_swish, which takes x * HardSigmoid(x) whole.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.algebra import Ramp, close, ramps
from deploy.surgery.region import bytes_saved, sole_use, type_name
from deploy.surgery.rewrite import New, Replace, Skip

_ENDS = ("HardSigmoid", "Clip", "Min", "Max", "Mul", "Div", "Add", "Sub")
_DTYPES = (np.float32, np.float16)


def recognize_hard_sigmoid(node: gs.Node) -> Replace | Skip | None:
    """Replace the chain that this node ends by HardSigmoid."""
    if node.op not in _ENDS:
        return None
    dtype = node.outputs[0].dtype
    found = _longest(node, dtype)
    if found is None:
        return None
    if dtype not in _DTYPES:
        return Skip(
            f"engines have HardSigmoid in float32 and float16, not {type_name(node.outputs[0])}"
        )
    removed = sole_use(node, found.nodes)
    if len(removed) == 1:
        return Skip("everything before the last node is read elsewhere: nothing would go away")
    attrs = {"alpha": found.slope, "beta": found.offset}
    new = New("HardSigmoid", (found.x,), (node.outputs[0],), attrs)
    reason = f"{len(removed)} nodes are HardSigmoid({found.slope:.6g} * x + {found.offset:.6g})"
    return Replace(removed, (new,), reason, bytes_saved(removed, found.x))


def _longest(node: gs.Node, dtype: np.dtype | type | None) -> Ramp | None:
    """The node as a rising ramp from 0 to 1 of a tensor as far up as nothing else is read."""
    found = None
    for ramp in ramps(node.outputs[0]):
        # a value that others read stays anyway: reading it is as cheap as reading what it's made of
        if len(ramp.nodes) > 2 and len(ramp.nodes[-1].outputs[0].outputs) > 1:
            break
        bounded = close(ramp.low, 0.0, dtype) and close(ramp.high, 1.0, dtype)
        if len(ramp.nodes) > 1 and bounded and 0 < ramp.slope < np.inf:
            found = ramp
    return found
