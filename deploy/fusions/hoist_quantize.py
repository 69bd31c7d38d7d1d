"""Data moves as int8: a QuantizeLinear climbs above the ops that only move data.

    Transpose|Reshape|Slice|Concat|MaxPool|… -> QuantizeLinear
    =>  QuantizeLinear -> Transpose|Reshape|Slice|Concat|MaxPool|…

With one scale for the whole tensor both orders give the same bits: the ops copy elements, and a
maximum is the same element before and after rounding. It pays because the moving op reads and
writes a quarter of the bytes, and the quantizer comes to stand behind the layer that makes the
values, where vendors merge it into that layer.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.carry import hoist
from deploy.surgery.conversion import Conversion, quantize
from deploy.surgery.movement import MONOTONE
from deploy.surgery.rewrite import Replace, Skip


def hoist_quantize(node: gs.Node) -> Replace | Skip | None:
    """Move this QuantizeLinear above the data movement that feeds it."""
    return hoist(node, _narrowing, MONOTONE)


def _narrowing(node: gs.Node) -> Conversion | Skip | None:
    found = quantize(node)
    if isinstance(found, Conversion) and found.source.itemsize <= found.target.itemsize:
        return None
    return found
