"""Data moves in its narrow type: a Cast to fewer bits climbs above the ops that only move data.

    Transpose|Reshape|Slice|Concat|… -> Cast(narrow)   =>   Cast(narrow) -> Transpose|…

Both orders give the same bits, as these ops copy elements and never compute. It pays because the
moving op then reads and writes half or a quarter of the bytes; where the cast would have to read
more than it saves (above a Slice of a large tensor), it stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deploy.graph import constant, elements, label, producer
from deploy.rewrite import New, Replace, Skip

# ops that copy elements unchanged, with how many of their first inputs carry data (0: all)
_MOVES = {
    "Transpose": 1,
    "Reshape": 1,
    "Squeeze": 1,
    "Unsqueeze": 1,
    "Slice": 1,
    "Split": 1,
    "Gather": 1,
    "Concat": 0,
    "Expand": 1,
    "Tile": 1,
    "Pad": 1,
    "DepthToSpace": 1,
    "SpaceToDepth": 1,
    "Flatten": 1,
    "Identity": 1,
}
_RELABELS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_READS_A_PART = ("Slice", "Gather")


def hoist_downcast(node: gs.Node) -> Replace | Skip | None:
    """Move this Cast above the data movement that feeds it."""
    if node.op != "Cast":
        return None
    mover = producer(node.inputs[0])
    if mover is None or mover.op not in _MOVES:
        return None
    wide = _dtype(node.inputs[0])
    narrow = onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"]))
    if wide is None or wide.itemsize <= narrow.itemsize:
        return None
    casts = _casts(mover, node)
    if isinstance(casts, Skip):
        return casts
    side = _side_inputs(mover, wide, narrow)
    if isinstance(side, Skip):
        return side
    saved = _bytes_saved(mover, wide.itemsize, narrow.itemsize)
    if saved is None:
        return Skip(f"the sizes around {mover.op} are unknown, so the gain is too")
    if saved < 0:
        return Skip(f"casting above {mover.op} would move {-saved} bytes more")
    return _hoisted(mover, casts, side, saved)


def _dtype(tensor: gs.Tensor) -> np.dtype | None:
    """The element type; graphsurgeon keeps those NumPy lacks (bfloat16, float8) as ONNX numbers."""
    if isinstance(tensor.dtype, int):
        return onnx.helper.tensor_dtype_to_np_dtype(tensor.dtype)
    return None if tensor.dtype is None else np.dtype(tensor.dtype)


def _casts(mover: gs.Node, node: gs.Node) -> list[gs.Node] | Skip:
    """The Cast behind every output of the mover that is read; all to the same type."""
    casts = []
    for value in mover.outputs:
        for reader in value.outputs:
            if reader.op != "Cast" or reader.attrs != node.attrs:
                return Skip(f"{label(reader)!r} needs the wide value of {value.name!r}")
        if len(value.outputs) > 1:
            return Skip(f"{len(value.outputs)} casts read {value.name!r}; simplify first")
        casts.extend(value.outputs)
    return casts


def _data_inputs(mover: gs.Node) -> list[gs.Tensor]:
    count = _MOVES[mover.op]
    return list(mover.inputs[:count] if count else mover.inputs)


def _side_inputs(
    mover: gs.Node, wide: np.dtype, narrow: np.dtype
) -> list[gs.Tensor | np.ndarray] | Skip:
    """What follows the data inputs (shapes, axes); Pad's value in the narrow type."""
    side: list[Any] = list(mover.inputs[len(_data_inputs(mover)) :])
    if mover.op != "Pad" or len(side) < 2 or side[1].is_empty():
        return side
    value = constant(side[1])
    if value is None:
        return Skip("the value of Pad is computed at run time")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = value.astype(narrow)
    if not np.array_equal(cast.astype(wide), value):
        return Skip(f"Pad's value {value.reshape(-1)[0]} is not representable in {narrow}")
    side[1] = cast
    return side


def _bytes_saved(mover: gs.Node, wide: int, narrow: int) -> int | None:
    """Traffic before minus traffic after, in bytes per sample; None when a size is unknown."""
    if mover.op in _RELABELS:
        return 0  # moves nothing: only the way further up is free
    sizes_in = [elements(t) for t in _data_inputs(mover)]
    sizes_out = [elements(t) for t in mover.outputs]
    if None in sizes_in or None in sizes_out:
        return None
    total_in = sum(s for s in sizes_in if s is not None)
    total_out = sum(s for s in sizes_out if s is not None)
    moved = (min(total_in, total_out) if mover.op in _READS_A_PART else total_in) + total_out
    before = moved * wide + total_out * (wide + narrow)
    after = total_in * (wide + narrow) + moved * narrow
    return before - after


def _hoisted(
    mover: gs.Node, casts: list[gs.Node], side: list[gs.Tensor | np.ndarray], saved: int
) -> Replace:
    attrs = casts[0].attrs
    narrow = onnx.helper.tensor_dtype_to_np_dtype(int(attrs["to"]))
    behind = {id(cast.inputs[0]): cast.outputs[0] for cast in casts}
    hoisted: list[gs.Variable] = []
    new: list[New] = []
    for value in _data_inputs(mover):
        fresh = gs.Variable("", narrow, value.shape)
        new.append(New("Cast", (value,), (fresh,), attrs))
        hoisted.append(fresh)
    # an output nobody reads still has its place in Split's list
    outputs = tuple(behind.get(id(t), gs.Variable("", narrow, t.shape)) for t in mover.outputs)
    new.append(New(mover.op, (*hoisted, *side), outputs, mover.attrs, mover.domain))
    reason = f"Cast to {narrow} moved above {mover.op}"
    return Replace((mover, *casts), tuple(new), reason, saved)
