"""The same operator in another axis order: what a Transpose in front of it turns into.

    y = op(Transpose<perm>(x))   =>   y = Transpose<order>(turned op(x))

`turned` holds for every operator that has no layout of its own: elementwise ones, those that name
their axes, and what `last_axis.py` writes otherwise. Layers with a fixed layout (Conv,
BatchNormalization) have no entry; `turned.py` says where others can't. Numbers are the same bits,
except that a sum over axes may add in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.axis_order import Order, inverse
from deploy.surgery.elementwise import ELEMENTWISE
from deploy.surgery.graph import constant, rank
from deploy.surgery.last_axis import turned_matmul, turned_normalization, turned_reshape
from deploy.surgery.rewrite import Skip
from deploy.surgery.turned import CAREFUL, Turned


def turned(node: gs.Node, perm: Order) -> Turned | Skip | None:
    """The node for data without the Transpose by `perm`; None for ops with their own layout."""
    if node.domain not in (None, "", "ai.onnx"):
        return None
    handler = _elementwise if node.op in ELEMENTWISE else _HANDLERS.get(node.op)
    if handler is None:
        return None
    if any(rank(value) is None for value in (*node.inputs, *node.outputs) if not value.is_empty()):
        return Skip(f"the shapes around {node.op} are unknown")
    if handler not in (_elementwise, turned_reshape) and rank(node.inputs[0]) != len(perm):
        return None
    if handler not in (_elementwise, _concat) and isinstance(node.inputs[0], gs.Constant):
        return None
    found = handler(node, perm)
    if isinstance(found, Turned) and all(_is_single(value) for value in node.outputs):
        # one value is the same in every order
        return replace(found, order=tuple(range(len(found.order))))
    return found


def _elementwise(node: gs.Node, perm: Order) -> Turned | Skip | None:
    """Every input broadcasts: constants turn with the data, single values stay."""
    if rank(node.outputs[0]) != len(perm):
        return None
    inputs: list[gs.Tensor | np.ndarray] = []
    data = []
    for index, value in enumerate(node.inputs):
        values = constant(value)
        if value.is_empty() or _is_single(value):
            inputs.append(value)
        elif values is not None:
            full = values.reshape((1,) * (len(perm) - values.ndim) + values.shape)
            inputs.append(full.transpose(inverse(perm)))
        elif rank(value) == len(perm):
            inputs.append(value)
            data.append(index)
        else:
            return Skip(f"{node.op} broadcasts {value.name!r}, of fewer dimensions, at run time")
    return Turned(tuple(inputs), tuple(data), dict(node.attrs), perm) if data else None


def _is_single(value: gs.Tensor) -> bool:
    """One value, which broadcasts alike in every axis order."""
    return all(d == 1 for d in value.shape)


def _concat(node: gs.Node, perm: Order) -> Turned:
    inputs, data = [], []
    for index, value in enumerate(node.inputs):
        values = constant(value)
        inputs.append(value if values is None else values.transpose(inverse(perm)))
        if values is None:
            data.append(index)
    return Turned(tuple(inputs), tuple(data), {"axis": perm[node.attrs["axis"] % len(perm)]}, perm)


def _with_axis(default: int) -> Callable[[gs.Node, Order], Turned | Skip | None]:
    """For operators whose only axis is the attribute `axis`."""

    def handler(node: gs.Node, perm: Order) -> Turned | Skip | None:
        axis = perm[int(node.attrs.get("axis", default)) % len(perm)]
        return Turned(tuple(node.inputs), (0,), {**node.attrs, "axis": axis}, perm)

    return handler


def _linear(node: gs.Node, perm: Order) -> Turned | Skip | None:
    """QuantizeLinear and DequantizeLinear: per tensor, or along one axis."""
    if node.attrs.get("block_size", 0):
        return Skip(f"{node.op} works on blocks")
    if _is_single(node.inputs[1]):
        return Turned(tuple(node.inputs), (0,), dict(node.attrs), perm)
    return _with_axis(1)(node, perm)


def _gather(node: gs.Node, perm: Order) -> Turned | Skip | None:
    dimensions = rank(node.inputs[1])
    axis = int(node.attrs.get("axis", 0)) % len(perm)
    if dimensions not in (0, 1):
        return Skip(f"Gather takes indices of {dimensions} dimensions")
    order = perm if dimensions == 1 else _without(perm, [axis])
    return Turned(tuple(node.inputs), (0,), {**node.attrs, "axis": perm[axis]}, order)


def _reduce(node: gs.Node, perm: Order) -> Turned | Skip | None:
    """Reduce*: axes as an attribute, or as an input (13 for ReduceSum, 18 for the others)."""
    axes = _axes(node, 1)
    if isinstance(axes, Skip):
        return axes
    if axes is None and node.attrs.get("noop_with_empty_axes", 0):
        return Skip(f"{node.op} without axes does nothing")
    order = perm if node.attrs.get("keepdims", 1) else _without(perm, axes)
    return _renamed_axes(node, perm, axes, order)


def _squeeze(node: gs.Node, perm: Order) -> Turned | Skip | None:
    axes = _axes(node, 1)
    if isinstance(axes, Skip):
        return axes
    if axes is None:
        return Skip("Squeeze without axes")
    return _renamed_axes(node, perm, axes, _without(perm, axes))


def _arg(node: gs.Node, perm: Order) -> Turned | Skip | None:
    axis = int(node.attrs.get("axis", 0)) % len(perm)
    order = perm if node.attrs.get("keepdims", 1) else _without(perm, [axis])
    return Turned(tuple(node.inputs), (0,), {**node.attrs, "axis": perm[axis]}, order)


def _slice(node: gs.Node, perm: Order) -> Turned | Skip | None:
    if len(node.inputs) < 3:
        return Skip("Slice in the form before opset 10")
    axes = _axes(node, 3)
    if isinstance(axes, Skip):
        return axes
    count = node.inputs[1].shape[0]
    if axes is None and not isinstance(count, int):
        return Skip("Slice without axes, and a number of starts that isn't known")
    listed = range(count) if axes is None else axes
    renamed = np.asarray([perm[a % len(perm)] for a in listed], node.inputs[1].dtype)
    inputs = (*node.inputs[:3], renamed, *node.inputs[4:])
    return Turned(inputs, (0,), dict(node.attrs), perm)


def _pad(node: gs.Node, perm: Order) -> Turned | Skip | None:
    axes = _axes(node, 3)
    if isinstance(axes, Skip):
        return axes
    if axes is not None:
        return _renamed_axes(node, perm, axes, perm, 3)
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if pads is None:
        return Skip("the pads are computed at run time")
    moved = pads.reshape(2, -1)[:, list(inverse(perm))].reshape(-1)
    return Turned((node.inputs[0], moved, *node.inputs[2:]), (0,), dict(node.attrs), perm)


def _per_axis(node: gs.Node, perm: Order) -> Turned | Skip | None:
    """Expand and Tile: one number per axis."""
    numbers = constant(node.inputs[1])
    if numbers is None:
        return Skip(f"the sizes of {node.op} are computed at run time")
    if numbers.size > len(perm):
        return None
    full = np.concatenate([np.ones(len(perm) - numbers.size, numbers.dtype), numbers])
    inputs = (node.inputs[0], full[list(inverse(perm))])
    return Turned(inputs, (0,), dict(node.attrs), perm)


def _axes(node: gs.Node, index: int) -> list[int] | Skip | None:
    """The axes of a node, from its attribute or that input; None where it gives none."""
    if "axes" in node.attrs:
        return [int(axis) for axis in node.attrs["axes"]]
    if len(node.inputs) <= index or node.inputs[index].is_empty():
        return None
    values = constant(node.inputs[index])
    if values is None:
        return Skip(f"the axes of {node.op} are computed at run time")
    return [int(axis) for axis in values.reshape(-1)] or None


def _renamed_axes(
    node: gs.Node, perm: Order, axes: list[int] | None, order: Order, index: int = 1
) -> Turned:
    """The node with its axes, attribute or input, named as they are before the Transpose."""
    attrs, inputs = dict(node.attrs), list(node.inputs)
    if axes is not None:
        renamed = [perm[axis % len(perm)] for axis in axes]
        if "axes" in attrs:
            attrs["axes"] = sorted(renamed)
        else:
            inputs[index] = np.asarray(renamed, node.inputs[index].dtype)
    return Turned(tuple(inputs), (0,), attrs, order)


def _without(perm: Order, axes: list[int] | None) -> Order:
    """What is left of an axis order when these axes (None: all) are gone."""
    gone = range(len(perm)) if axes is None else [axis % len(perm) for axis in axes]
    left = [axis for position, axis in enumerate(perm) if position not in gone]
    return tuple(sorted(left).index(axis) for axis in left)


_HANDLERS: dict[str, Callable[[gs.Node, Order], Turned | Skip | None]] = {
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "ReduceProd"), _reduce),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare"), _reduce),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp"), _reduce),
    # load lifts models to opset 13: before, Softmax worked on all axes from `axis` on
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _with_axis(-1)),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _linear),
    **dict.fromkeys(("Expand", "Tile"), _per_axis),
    **CAREFUL,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), turned_normalization),
    "Concat": _concat,
    "Gather": _gather,
    "MatMul": turned_matmul,
    "Pad": _pad,
    "Reshape": turned_reshape,
    "Slice": _slice,
    "Split": _with_axis(0),
    "Squeeze": _squeeze,
}
