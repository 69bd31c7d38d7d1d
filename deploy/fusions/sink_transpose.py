"""A Transpose moves past the ops that have no layout of their own, to where it meets another one.

    Conv -> Transpose -> Add, Relu, Pad, Concat, Max … -> Transpose -> Conv
    =>  Conv -> Add, Relu, Pad, Concat, Max … -> Conv

A whole region of such ops is computed in the other axis order at once: constants turn, axes get
their other name, Transposes at its borders go or merge, and one appears where somebody still needs
the old order. A channel shuffle of the last axis becomes one of the other, for `channel_layout`. It
pays because a Transpose reads and writes the whole map for nothing. Same bits: what rounds another
way in another order, sums above all, is left to `sink_transpose_rounding`.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.rewrite import Replace, Skip
from deploy.surgery.transposed_region import turn_region


def sink_transpose(node: gs.Node) -> Replace | Skip | None:
    """Turn the region behind this Transpose, or the one in front of it."""
    return turn_region(node, rounding=False)
