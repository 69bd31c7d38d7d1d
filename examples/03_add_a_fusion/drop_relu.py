"""A Relu in front of a Clip that lets nothing negative through.

    Relu -> Clip(low >= 0)   =>   Clip

It pays because the Relu reads and writes the whole map to change nothing that the Clip wouldn't.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, elements, itemsize, producer
from deploy.surgery.rewrite import New, Replace, Skip


def drop_relu(node: gs.Node) -> Replace | Skip | None:
    """Let this Clip read what the Relu in front of it reads."""
    if node.op != "Clip":
        return None
    relu = producer(node.inputs[0])
    if relu is None or relu.op != "Relu":
        return None
    # from here on the pattern is there: whatever is in the way is a Skip with its reason
    if len(node.inputs) < 2 or not node.inputs[1].name:
        return Skip("Clip has no lower bound, so the Relu is what stops negative values")
    low = constant(node.inputs[1])
    if low is None:
        return Skip("Clip's lower bound is computed at run time")
    if not low >= 0:
        return Skip(f"Clip lets values down to {float(low):g} through, the Relu doesn't")
    x = relu.inputs[0]
    clip = New("Clip", (x, *node.inputs[1:]), (node.outputs[0],))
    # written once and read once less
    saved = 2 * (elements(x) or 0) * itemsize(x)
    return Replace((relu, node), (clip,), f"Clip starts at {float(low):g} by itself", saved)
