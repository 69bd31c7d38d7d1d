"""Data moves as int8: a DequantizeLinear sinks below the ops that only move data.

    DequantizeLinear -> Transpose|Reshape|Slice|Concat|MaxPool|…
    =>  Transpose|Reshape|Slice|Concat|MaxPool|… -> DequantizeLinear

With one scale for the whole tensor both orders give the same bits: the ops copy elements, and a
maximum is the same element before and after scaling. A Concat needs one scale and zero point for
all its inputs. It pays because the moving op reads and writes a quarter of the bytes; where another
node needs the float value too, it sinks only if even so less is moved.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.carry import sink
from deploy.surgery.conversion import Conversion, dequantize
from deploy.surgery.movement import MONOTONE
from deploy.surgery.rewrite import Replace, Skip


def sink_dequantize(node: gs.Node) -> Replace | Skip | None:
    """Move this DequantizeLinear below all the data movement that it feeds."""
    return sink(node, _widening, MONOTONE)


def _widening(node: gs.Node) -> Conversion | Skip | None:
    found = dequantize(node)
    if isinstance(found, Conversion) and found.source.itemsize >= found.target.itemsize:
        return None
    return found
