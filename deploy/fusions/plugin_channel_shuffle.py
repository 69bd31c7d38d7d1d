"""A channel shuffle that no depthwise convolution reads, as one plugin kernel.

    Reshape -> Transpose -> Reshape | Gather of all channels   =>   ChannelShuffle

One copy by whole planes instead of a transposition of a five-dimensional tensor. It moves as many
bytes, so it saves nothing where the vendor's compiler sees through the three: OpenVINO and TensorRT
do, and TensorRT-RTX fuses them into the kernel before. No built-in target lists it; it is for a
target file of yours whose compiler makes several copies of them.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.graph import itemsize
from deploy.surgery.rewrite import New, Replace, Skip
from deploy.surgery.shuffle_pattern import shuffle_before


def plugin_channel_shuffle(node: gs.Node) -> Replace | Skip | None:
    """Replace the shuffle that this node ends."""
    shuffle = shuffle_before(node.outputs[0]) if node.op in ("Reshape", "Gather") else None
    if shuffle is None:
        return None
    if shuffle.groups == 1:
        return Skip("a shuffle of one group moves nothing")
    if itemsize(shuffle.x) not in (1, 2, 4):
        return Skip(f"elements of {itemsize(shuffle.x)} bytes; the kernel moves 1, 2 or 4")
    new = New(
        "ChannelShuffle",
        (shuffle.x,),
        (node.outputs[0],),
        {"groups": shuffle.groups},
        "onnx_deploy",
    )
    return Replace(shuffle.chain, (new,), f"a shuffle of {shuffle.groups} groups as one copy")
