"""A channel shuffle that a grouped convolution forces, in front of a depthwise convolution.

What `channel_layout` has to leave (ShuffleNetV1): found, but not rewritten, for a kernel that reads
the shuffled channels directly instead of having them moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.channels import channel_count, moved_channels, shuffle_of
from deploy.surgery.graph import constant, producer
from deploy.surgery.region import sole_reader


@dataclass(frozen=True)
class ShuffleDepthwise:
    """depthwise(shuffle(x)), kernel and stride those of `conv`.

    x: float[N, C, H, W], before the shuffle; groups: how many groups the shuffle interleaves, 1..C;
    inside: the nodes of the shuffle and `conv`, in order.
    """

    x: gs.Tensor
    groups: int
    conv: gs.Node
    inside: tuple[gs.Node, ...]

    @property
    def fits_one_kernel(self) -> bool:
        """Whether nothing outside reads the shuffled map."""
        return sole_reader(self.conv.inputs[0]) is self.conv


def shuffle_depthwise(node: gs.Node) -> ShuffleDepthwise | None:
    """The pattern that ends in this depthwise convolution; None when it isn't there."""
    if node.op != "Conv" or constant(node.inputs[1]) is None:
        return None
    count = channel_count(node.inputs[0])
    if count is None or count == 1 or int(node.attrs.get("group", 1)) != count:
        return None
    shuffle = shuffle_before(node.inputs[0])
    if shuffle is None:
        return None
    return ShuffleDepthwise(shuffle.x, shuffle.groups, node, (*shuffle.chain, node))


@dataclass(frozen=True)
class Shuffle:
    """A channel shuffle: of `x`, of how many groups, by which Reshape, Transpose, Reshape, or by
    which Gather."""

    x: gs.Tensor
    groups: int
    chain: tuple[gs.Node, ...]


def shuffle_before(tensor: gs.Tensor) -> Shuffle | None:
    """The shuffle that a tensor comes out of; None when it comes out of something else."""
    last = producer(tensor)
    if last is None or last.op not in ("Reshape", "Gather"):
        return None
    chain, moved = shuffle_of(last) or (last,), moved_channels(last)
    x = chain[0].inputs[0]
    # a Gather may also take some of them
    groups = None if moved is None or len(moved[0]) != channel_count(x) else _groups(moved[0])
    return None if groups is None else Shuffle(x, groups, chain)


def _groups(order: np.ndarray) -> int | None:
    """How many groups an order interleaves: channel i comes from (i % g) * n + i // g."""
    count = len(order)
    for groups in range(1, count + 1):
        if count % groups == 0:
            interleaved = np.arange(count).reshape(groups, -1).T.reshape(-1)
            if np.array_equal(order, interleaved):
                return groups
    return None
