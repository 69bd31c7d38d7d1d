"""A padded convolution of single values that steps reads two, the second times zero.

    Conv [O, C, 1, 1], strides [2, 2], pads [1, 1, 1, 1]
    =>  Conv [O, C, 1, 2], strides [2, 2], pads [1, 1, 1, 2], zeros in the second column

The same numbers for twice the products of a rare layer. It pays because OpenVINO (2026.4.1) gets
the first form wrong behind another node, in float as in 8 bits: it moves the steps of kernels of
one value in front of their padding, and even the size of the result is another one. Grouped
convolutions stay right there. Run it behind `fold_pad`, which makes such layers.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant
from deploy.surgery.rewrite import New, Replace, Skip


def widen_padded_pointwise(node: gs.Node) -> Replace | Skip | None:
    """Give this convolution a kernel of two values where it pads and steps along one axis."""
    if node.op != "Conv" or int(node.attrs.get("group", 1)) != 1 or not _pads_and_steps(node):
        return None
    shape = node.inputs[1].shape
    if shape is not None and any(size != 1 for size in shape[2:]):
        return None
    weights = constant(node.inputs[1])
    if weights is None:
        return Skip("its weights are computed at run time, and OpenVINO may take it wrongly")
    wide = np.concatenate([weights, np.zeros_like(weights)], axis=-1)
    pads = [int(n) for n in node.attrs["pads"]]
    # behind the last column, for the zeros to reach as far as the values did
    pads[-1] += 1
    attrs = {k: v for k, v in node.attrs.items() if k != "dilations"}
    attrs |= {"pads": pads, "kernel_shape": list(wide.shape[2:])}
    new = New("Conv", (node.inputs[0], wide, *node.inputs[2:]), tuple(node.outputs), attrs)
    return Replace((node,), (new,), "a column of zeros, for OpenVINO to keep steps behind padding")


def _pads_and_steps(node: gs.Node) -> bool:
    """Whether there is an axis with padding and with steps of more than one."""
    pads, steps = (node.attrs.get(name, ()) for name in ("pads", "strides"))
    return any(pad and step > 1 for pad, step in zip(pads, (*steps, *steps), strict=False))
