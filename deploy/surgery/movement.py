"""What only moves data: the operators, what they cost in bytes, which types they can move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.conversion import Conversion
from deploy.surgery.graph import constant, elements
from deploy.surgery.rewrite import Skip

# ops that copy elements unchanged, with how many of their first inputs carry data (0: all)
MOVES = {
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
# it picks elements by their order, which a conversion of positive scale keeps
MONOTONE = ("MaxPool",)
RELABELS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_READS_A_PART = ("Slice", "Gather")

# what ONNX Runtime's CPU kernels take, from opset 13 on: the reference has to run every graph
_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_PLAIN = _INTEGERS | {"bool", "float16", "float32", "float64"}
_FLOAT8 = {"float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"}
_POOLED = frozenset({"int8", "uint8", "float16", "float32", "float64"})
_KERNELS = {
    "Transpose": _PLAIN | {"bfloat16"} | _FLOAT8,
    "Reshape": _PLAIN | {"bfloat16"} | _FLOAT8,
    "Identity": _PLAIN | {"bfloat16"} | _FLOAT8,
    "Expand": _PLAIN,
    "Tile": _PLAIN,
    "Pad": _PLAIN - {"int16", "uint16"},
    # float16 goes through a float32 kernel there, and the rounding of the cast in front is lost
    "DepthToSpace": _POOLED - {"float16"},
    "SpaceToDepth": _POOLED - {"float16"},
    "MaxPool": _POOLED,
}

# what follows the data inputs: shapes, axes, indices, Pad's value
Side = tuple[gs.Tensor | np.ndarray, ...]


def moves(node: gs.Node, also: Sequence[str] = ()) -> bool:
    """Whether the node copies elements, or is one of the operators `also`."""
    return (node.op in MOVES or node.op in also) and node.domain in (None, "", "ai.onnx")


def data_inputs(mover: gs.Node) -> list[gs.Tensor]:
    """What is moved, without shapes, axes and indices."""
    count = MOVES.get(mover.op, 1)
    return list(mover.inputs[:count] if count else mover.inputs)


def only_data(mover: gs.Node, value: gs.Tensor) -> bool:
    """Whether the mover reads the value as data, and not (or not also) as a shape or an index."""
    sides = mover.inputs[len(data_inputs(mover)) :]
    return all(side is not value for side in sides)


def side_inputs(mover: gs.Node, conversion: Conversion) -> Side | Skip:
    """What follows the data inputs (shapes, axes), Pad's value in the narrow type; Skip when the
    operator can't work in that type."""
    narrow = conversion.narrow
    if narrow.name not in _KERNELS.get(mover.op, _PLAIN | {"bfloat16"}):
        return Skip(f"no {narrow} kernel for {mover.op} in ONNX Runtime on the CPU")
    if len(mover.outputs) > 1 and mover.op == "MaxPool":
        return Skip("the indices of MaxPool depend on which of two equal values comes first")
    side: list[Any] = list(mover.inputs[len(data_inputs(mover)) :])
    if mover.op != "Pad":
        return tuple(side)
    if mover.attrs.get("mode", "constant") != "constant":
        # no value is padded with, but one may be given, and its type has to be the data's
        return (side[0], gs.Variable.empty(), side[2]) if len(side) > 2 else tuple(side[:1])
    given = side[1] if len(side) > 1 and not side[1].is_empty() else None
    if given is None and conversion.scale is None:
        return tuple(side)  # zero is zero in every type
    value = np.zeros((), conversion.wide) if given is None else constant(given)
    if value is None:
        return Skip("the value of Pad is computed at run time")
    narrowed = conversion.narrowed(value)
    if narrowed is None:
        return Skip(f"Pad's value {value.reshape(-1)[0]} is not representable in {narrow}")
    return (side[0], narrowed, *side[2:])


def moved(mover: gs.Node) -> int | None:
    """Elements per sample that the operator reads plus those it writes."""
    if mover.op in RELABELS:
        return 0
    read, out = total(data_inputs(mover)), total(mover.outputs)
    if read is None or out is None:
        return None
    return (min(read, out) if mover.op in _READS_A_PART else read) + out


def total(tensors: Iterable[gs.Tensor]) -> int | None:
    """Elements per sample of all of them; None when a shape is unknown."""
    sizes = [elements(t) for t in tensors]
    return None if None in sizes else sum(s for s in sizes if s is not None)
