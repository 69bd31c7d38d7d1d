"""What a Q/DQ graph says of one tensor: its integers' scale, and the values of stored weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, producer

_PAIR = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Stored:
    """A weight or bias: its values in float, and the scale of the integers it is stored as, one
    per index of axis 0 (float32[C]), None where it is stored in float."""

    values: np.ndarray
    scale: np.ndarray | None


def scale_of(node: gs.Node) -> float | None:
    """The one scale of a QuantizeLinear or DequantizeLinear to or from int8 without a zero point;
    None for any other form."""
    if node.op not in _PAIR:
        return None
    scale = constant(node.inputs[1])
    if scale is None or scale.size != 1 or not _is_plain_int8(node):
        return None
    return float(scale.reshape(()))


def stored(tensor: gs.Tensor) -> Stored | None:
    """A constant, or one behind DequantizeLinear or behind Q/DQ; None when it isn't known, or
    stored with a zero point or in blocks."""
    values = constant(tensor)
    if values is not None:
        return Stored(values, None)
    node = producer(tensor)
    if node is None or node.op != "DequantizeLinear":
        return None
    scale = constant(node.inputs[1])
    if scale is None or scale.ndim > 1 or node.attrs.get("block_size", 0) or _zero(node) is None:
        return None
    integers = _integers(node.inputs[0], scale, node)
    if integers is None or (scale.size > 1 and int(node.attrs.get("axis", 1)) % integers.ndim):
        return None
    each = np.broadcast_to(scale.reshape(-1), (len(integers),)).astype(np.float32)
    shaped = each.reshape(-1, *[1] * (integers.ndim - 1))
    return Stored((integers * shaped).astype(np.float32), each)


def _integers(tensor: gs.Tensor, scale: np.ndarray, reader: gs.Node) -> np.ndarray | None:
    """The integers that a DequantizeLinear reads, rounded here where the graph stores floats."""
    values = constant(tensor)
    if values is not None:
        return values
    node = producer(tensor)
    values = None if node is None or node.op != "QuantizeLinear" else constant(node.inputs[0])
    if node is None or values is None or not _is_plain_int8(node) or values.ndim == 0:
        return None
    own = constant(node.inputs[1])
    same_axis = int(node.attrs.get("axis", 1)) == int(reader.attrs.get("axis", 1))
    if own is None or not np.array_equal(own, scale) or not same_axis:
        return None
    shaped = scale.reshape(-1, *[1] * (values.ndim - 1)) if scale.ndim else scale
    return np.asarray(np.clip(np.rint(values / shaped), -128, 127))


def _is_plain_int8(node: gs.Node) -> bool:
    zero = _zero(node)
    return zero is not None and zero.dtype == np.int8


def _zero(node: gs.Node) -> np.ndarray | None:
    """The zero points where all of them are 0; None where they aren't."""
    if len(node.inputs) < 3 or node.inputs[2].is_empty():
        return None
    zero = constant(node.inputs[2])
    return None if zero is None or zero.any() else zero
