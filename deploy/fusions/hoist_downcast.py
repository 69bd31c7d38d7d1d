"""Data moves in its narrow type: a Cast to fewer bits climbs above the ops that only move data.

    Transpose|Reshape|Slice|Concat|… -> Cast(narrow)   =>   Cast(narrow) -> Transpose|…

Both orders give the same bits, as these ops copy elements and never compute. It pays because the
moving op then reads and writes half or a quarter of the bytes; where the cast would have to read
more than it saves (above a Slice of a large tensor), it stays.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.carry import hoist
from deploy.surgery.conversion import Conversion, cast
from deploy.surgery.rewrite import Replace, Skip


def hoist_downcast(node: gs.Node) -> Replace | Skip | None:
    """Move this Cast above the data movement that feeds it."""
    return hoist(node, _downcast)


def _downcast(node: gs.Node) -> Conversion | None:
    found = cast(node)
    return found if found and found.source.itemsize > found.target.itemsize else None
