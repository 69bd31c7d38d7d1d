"""Data moves in its narrow type: a Cast to fewer bits climbs above the ops that only move data.

    Transpose|Reshape|Slice|Concat|… -> Cast(narrow)   =>   Cast(narrow) -> Transpose|…

Both orders give the same bits, as these ops copy elements and never compute. It pays because the
moving op then reads and writes half or a quarter of the bytes; where the cast would have to read
more than it saves (above a Slice of a large tensor), it stays.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.carry import hoist
from deploy.surgery.conversion import Conversion, cast
from deploy.surgery.graph import producer
from deploy.surgery.movement import data_inputs
from deploy.surgery.rewrite import Replace, Skip


def hoist_downcast(node: gs.Node) -> Replace | Skip | None:
    """Move this Cast above the data movement that feeds it."""
    found = hoist(node, _downcast)
    rounded = _rounded_in_front(node) if isinstance(found, Replace) else None
    if rounded is not None:
        return Skip(
            f"ONNX Runtime makes one of two Casts in a row, and what the one to {rounded} rounds "
            "would be lost"
        )
    return found


def _rounded_in_front(node: gs.Node) -> np.dtype | None:
    """The float type to which what this Cast to integers would come to stand behind rounds."""
    if (own := cast(node)) is None or own.target.kind not in "iub":
        return None
    mover = producer(node.inputs[0])
    for value in data_inputs(mover) if mover is not None else ():
        source = producer(value)
        first = cast(source) if source is not None else None
        if first and first.target.kind not in "iub" and _may_round(first):
            return first.target
    return None


def _may_round(first: Conversion) -> bool:
    return first.source.itemsize >= first.target.itemsize


def _downcast(node: gs.Node) -> Conversion | None:
    found = cast(node)
    return found if found and found.source.itemsize > found.target.itemsize else None
