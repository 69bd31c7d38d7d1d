"""A strided first convolution reads an image's rows as they lie.

    Conv [O, C, kh, kw]      =>  Transpose to [N, H, C, W] -> Reshape to [N, H*C, W/s, s]
     strides [t, s]                -> Transpose to [N, s, H*C, W/s]
     of an image [N, C, H, W]      -> Conv [O, s, kh*C, kw'], strides [t*C, 1]

CPU engines compute with the channels innermost. Of an image with few of them they first make such
a copy, value by value. Here whole rows move instead, and `s` neighbours in a row take the place of
the channels: the last Transpose moves nothing, it only says so. Weights are spread over the new
taps, zeros between them; the products are the same. In OpenVINO on one core, bf16, the first
layers of ShuffleNetV2 (copy, convolution, pool) take 0.84 of the time; in float32 it is a tie
(benchmarks/shufflenet.py). Run it on the final graph; a quantized convolution is left to
`columns_as_channels`.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.first_conv import is_image, why_not_regrouped
from deploy.surgery.graph import constant
from deploy.surgery.rewrite import New, Replace, Skip

# OpenVINO, first layers of 224x224 with a free batch or height: 1.2 to 1.6 times the time
FIXED_SIZES = True


def interleave_rows(node: gs.Node) -> Replace | Skip | None:
    """Give this convolution rows of all channels in place of the image."""
    if node.op != "Conv" or not is_image(node.inputs[0]):
        return None
    step_down, step = (int(n) for n in node.attrs.get("strides", (1, 1)))
    weights = constant(node.inputs[1])
    width = node.inputs[0].shape[3]
    if weights is None:
        return Skip("its weights are quantized or computed at run time")
    refusal = why_not_regrouped(node, node.inputs[0], step, step)
    if refusal is not None:
        return Skip(refusal)
    pads = [int(n) for n in node.attrs.get("pads", (0, 0, 0, 0))]
    channels, kernel = weights.shape[1], weights.shape[3]
    spread = _spread(weights, step, pads[1])
    columns = (width + pads[1] + pads[3] - kernel) // step + 1
    ahead = math.ceil(pads[1] / step)
    behind = columns - 1 + spread.shape[3] - width // step - ahead
    attrs = {
        "kernel_shape": list(spread.shape[2:]),
        "strides": [step_down * channels, 1],
        "pads": [pads[0] * channels, ahead, pads[2] * channels, behind],
    }
    dtype = node.inputs[0].dtype
    rows, pairs, named = (gs.Variable("", dtype) for _ in range(3))
    target = np.asarray([0, -1, width // step, step], np.int64)
    added = (
        New("Transpose", (node.inputs[0],), (rows,), {"perm": [0, 2, 1, 3]}),
        New("Reshape", (rows, target), (pairs,)),
        New("Transpose", (pairs,), (named,), {"perm": [0, 3, 1, 2]}),
        New("Conv", (named, spread, *node.inputs[2:]), (node.outputs[0],), attrs),
    )
    return Replace((node,), added, f"rows of {channels} channels interleaved, {step} columns each")


def _spread(weights: np.ndarray, step: int, before: int) -> np.ndarray:
    """Weights [O, C, kh, kw] as [O, step, kh * C, groups of columns]; `before`: the padding."""
    out, channels, height, width = weights.shape
    first = -math.ceil(before / step)
    groups = (width - 1 - before) // step - first + 1
    spread = np.zeros((out, step, height, channels, groups), weights.dtype)
    for column in range(width):
        group, place = divmod(column - before, step)
        spread[:, place, :, :, group - first] = weights[:, :, :, column].transpose(0, 2, 1)
    return spread.reshape(out, step, height * channels, groups)
