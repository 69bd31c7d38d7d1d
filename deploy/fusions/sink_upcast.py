"""Data moves in its narrow type: a Cast to more bits sinks below the ops that only move data.

    Cast(wide) -> Transpose|Reshape|Slice|Concat|…   =>   Transpose|… -> Cast(wide)

Both orders give the same bits, as these ops copy elements and never compute. It pays because the
moving op then reads and writes half or a quarter of the bytes, and behind a Gather or a Slice only
what was picked is cast. Where another node needs the wide value too, the cast in front remains:
then it sinks only if even so less is moved.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.carry import sink
from deploy.surgery.conversion import Conversion, cast
from deploy.surgery.rewrite import Replace, Skip


def sink_upcast(node: gs.Node) -> Replace | Skip | None:
    """Move this Cast below all the data movement that it feeds."""
    return sink(node, _upcast)


def _upcast(node: gs.Node) -> Conversion | None:
    found = cast(node)
    return found if found and found.source.itemsize < found.target.itemsize else None
