"""A group normalization written with Reshapes becomes one GroupNormalization.

    Reshape([N, G, -1]) -> InstanceNormalization -> Reshape(back) [-> Mul -> Add]
    Reshape([N, G, …]) -> ReduceMean -> Sub -> … -> Div -> Reshape(back) [-> Mul -> Add]
    =>  GroupNormalization(num_groups=G)

ONNX had no better spelling before opset 18, so exporters write these, the second in every form that
recognize_layer_norm knows. It pays because the map isn't read and written again for the scale and
the bias, and because an engine picks a kernel that keeps its own layout where the two Reshapes
would force the plain one. Needs opset 21.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, producer, rank
from deploy.surgery.means import same_shape
from deploy.surgery.normalization import normalized
from deploy.surgery.region import between, bytes_saved, sole_reader, sole_use, type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)
_ENDS = ("InstanceNormalization", "Div", "Mul")


@dataclass(frozen=True)
class _Core:
    """What normalizes `grouped`, a map as [N, G, …], over all but the first two axes."""

    grouped: gs.Tensor
    epsilon: float
    scale: np.ndarray | None
    bias: np.ndarray | None


def recognize_group_norm(node: gs.Node) -> Replace | Skip | None:
    """Replace the normalization that this node is or ends, with the Reshapes, scale and bias."""
    back = sole_reader(node.outputs[0]) if node.op in _ENDS else None
    core = _core(node) if back is not None and back.op == "Reshape" else None
    before = None if core is None else producer(core.grouped)
    if back is None or core is None or before is None or before.op != "Reshape":
        return None
    x = before.inputs[0]
    if x.dtype not in _DTYPES:
        return Skip(
            f"GroupNormalization takes its statistics in float32, and this is {type_name(x)}"
        )
    groups = _groups(x.shape, core.grouped.shape)
    if groups is None:
        return Skip(f"{x.shape} as {core.grouped.shape} isn't known to be groups of channels")
    if not same_shape(x.shape, back.outputs[0].shape):
        return Skip(f"{back.outputs[0].shape} isn't known to be the shape before, {x.shape}")
    if core.scale is None or core.bias is None:
        return Skip(f"the scale of {node.op} is computed at run time, or isn't one per group")
    channels = int(x.shape[1])
    repeats = channels // groups
    scale, bias = core.scale.repeat(repeats), core.bias.repeat(repeats)
    end, scale, bias = _affine_behind(back, scale, bias, len(x.shape))
    attrs = {"num_groups": groups, "epsilon": core.epsilon}
    removed = sole_use(end, between(end, x))
    new = New("GroupNormalization", (x, scale, bias), (end.outputs[0],), attrs)
    reason = f"{len(removed)} nodes normalize {channels} channels in {groups} groups"
    return Replace(removed, (new,), reason, bytes_saved(removed, x))


def _core(node: gs.Node) -> _Core | None:
    if node.op == "InstanceNormalization":
        epsilon = float(node.attrs.get("epsilon", 1e-5))
        return _Core(node.inputs[0], epsilon, *(constant(tensor) for tensor in node.inputs[1:3]))
    found = normalized(node)
    dims = None if found is None else rank(found.x)
    # over the last axes alone it is a layer normalization between two Reshapes
    if found is None or dims is None or dims < 3 or found.axes != tuple(range(2, dims)):
        return None
    groups = found.x.shape[1]
    if not isinstance(groups, int) or found.scale is not None:
        return _Core(found.x, found.epsilon, None, None)
    ones, zeros = np.ones(groups, found.x.dtype), np.zeros(groups, found.x.dtype)
    return _Core(found.x, found.epsilon, ones, zeros)


def _groups(shape: Sequence[object] | None, grouped: Sequence[object] | None) -> int | None:
    """Into how many groups a Reshape cuts the channels; None when that isn't certain."""
    if shape is None or grouped is None or len(shape) < 3 or len(grouped) < 3:
        return None
    channels, groups = shape[1], grouped[1]
    if not isinstance(channels, int) or not isinstance(groups, int) or channels % groups:
        return None
    # the element count is the same: equal sizes of a sample mean equal batches, and the other way
    if shape[0] == grouped[0]:
        return groups
    inner, grouped_inner = shape[1:], grouped[1:]
    if not all(isinstance(d, int) for d in (*inner, *grouped_inner)):
        return None
    return groups if np.prod(np.array(inner)) == np.prod(np.array(grouped_inner)) else None


def _affine_behind(
    back: gs.Node, scale: np.ndarray, bias: np.ndarray, dims: int
) -> tuple[gs.Node, np.ndarray, np.ndarray]:
    """The last node of `* k + b` per channel behind the Reshape, with both taken in."""
    end = back
    for op in ("Mul", "Add"):
        behind = sole_reader(end.outputs[0])
        values = _per_channel(behind, op, end, len(scale), dims)
        if behind is None or values is None:
            continue
        end = behind
        bias = np.asarray(bias * values if op == "Mul" else bias + values)
        scale = np.asarray(scale * values) if op == "Mul" else scale
    return end, scale, bias


def _per_channel(
    node: gs.Node | None, op: str, before: gs.Node, channels: int, dims: int
) -> np.ndarray | None:
    """The constant operand as [channels]; None when there is none or it varies otherwise."""
    others = (
        []
        if node is None or node.op != op
        else [tensor for tensor in node.inputs if tensor is not before.outputs[0]]
    )
    values = constant(others[0]) if len(others) == 1 else None
    if values is None or values.ndim > dims:
        return None
    if values.size == 1:
        return np.broadcast_to(values.reshape(1), (channels,))
    shape = (1,) * (dims - values.ndim) + values.shape
    fits = shape[1] == channels and values.size == channels
    return values.reshape(channels) if fits else None
