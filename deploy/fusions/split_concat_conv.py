"""A 1x1 convolution of a Concat becomes a sum of convolutions, where that moves fewer bytes.

    Concat(a, b, axis=1) -> Conv 1x1   =>   Add(Conv(a, Wa), Conv(b, Wb))

It pays where the Concat is much wider than the output: the copy of the Concat goes away, but every
further part writes a map of output channels and an Add reads two. The multiplications stay the
same; an addition per output element comes on top. Measured in OpenVINO on a CPU:
1.7-2.1 times slower on ShuffleNetV2, 1.01-1.03 on SqueezeNet, whatever the bytes say. A target
should list it only where it was measured to pay.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, elements, producer
from deploy.surgery.rewrite import New, Replace, Skip
from deploy.surgery.slicing import axis_of, size


def split_concat_conv(node: gs.Node) -> Replace | Skip | None:
    """Let this Conv read the parts of the Concat in front of it."""
    joined = producer(node.inputs[0]) if node.op == "Conv" else None
    if joined is None or joined.op != "Concat" or axis_of(joined) != 1:
        return None
    if len(joined.inputs) < 2:
        return None
    weight = constant(node.inputs[1])
    if weight is None:
        return Skip("the weights of Conv are computed at run time")
    if any(length != 1 for length in weight.shape[2:]):
        return None
    if node.attrs.get("group", 1) != 1:
        return Skip("the groups of Conv read across the parts of Concat")
    channels = [size(part, 1) for part in joined.inputs]
    if None in channels:
        return Skip(f"how many channels {joined.outputs[0].name!r} joins is unknown")
    written = elements(node.outputs[0])
    if written is None:
        return Skip(f"the size of {node.outputs[0].name!r} is unknown, so the gain is too")
    # the Concat's reads and writes, less the further outputs and the Adds over them
    joined_elements = sum(elements(part) or 0 for part in joined.inputs)
    saved = 2 * joined_elements - 4 * written * (len(joined.inputs) - 1)
    if saved <= 0:
        return Skip(f"a sum of convs would move {-saved} elements more than it saves")
    cuts = np.cumsum([n for n in channels if n is not None])[:-1]
    return _summed(joined, node, np.split(weight, cuts, axis=1), saved)


def _summed(joined: gs.Node, conv: gs.Node, weights: list[np.ndarray], saved: int) -> Replace:
    output = conv.outputs[0]
    added: list[New] = []
    total: gs.Variable | None = None
    for index, (part, weight) in enumerate(zip(joined.inputs, weights, strict=True)):
        term = gs.Variable("", output.dtype, output.shape)
        bias = tuple(conv.inputs[2:]) if index == 0 else ()
        added.append(New("Conv", (part, weight, *bias), (term,), conv.attrs))
        if total is None:
            total = term
            continue
        last = index == len(weights) - 1
        both = output if last else gs.Variable("", output.dtype, output.shape)
        added.append(New("Add", (total, term), (both,)))
        total = both
    reason = f"Conv of a Concat turned into a sum of {len(weights)}"
    return Replace((joined, conv), tuple(added), reason, saved * weights[0].dtype.itemsize)
