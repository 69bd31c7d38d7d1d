"""A node in another axis order, and the operators for which that takes some care."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant
from deploy.surgery.rewrite import New, Skip

Written = Callable[
    [Sequence[gs.Tensor | np.ndarray], Sequence[gs.Variable]],
    tuple[New, ...],
]


@dataclass(frozen=True)
class Turned:
    """A node for data that arrives untransposed.

    data: which inputs carry the data and have to be untransposed too (the rest of `inputs` is
    ready). order: the Transpose from the new outputs back to the old ones. written: the nodes for
    inputs and outputs, where they aren't the same operator with `attrs`. inside: nodes in front of
    it that are turned with it, the one that reads the data first. extra_bytes: what it moves more
    than before. dense: whether a matrix product becomes a Conv.
    """

    inputs: tuple[gs.Tensor | np.ndarray, ...]
    data: tuple[int, ...]
    attrs: dict[str, Any]
    order: tuple[int, ...]
    written: Written | None = None
    inside: tuple[gs.Node, ...] = ()
    extra_bytes: int = 0
    dense: bool = False


def turned_resize(node: gs.Node, perm: tuple[int, ...]) -> Turned | Skip:
    """Resize by constants, towards the order with batch and channels in front.

    ONNX Runtime and the engines have kernels that resize the axes behind those two; not all of them
    have one for channels behind the image.
    """
    attrs = dict(node.attrs)
    if attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return Skip("Resize crops its axes to a region")
    if attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return Skip("Resize keeps an aspect ratio")
    if attrs.get("mode", "nearest") != "nearest" and np.dtype(node.outputs[0].dtype).kind in "iu":
        return Skip("Resize rounds integers")
    at = 3 if len(node.inputs) > 3 and not node.inputs[3].is_empty() else 2
    numbers = constant(node.inputs[at]) if len(node.inputs) > at else None
    if numbers is None:
        return Skip("the sizes of Resize are computed at run time")
    axes = [int(axis) % len(perm) for axis in attrs.get("axes", range(len(perm)))]
    same = node.inputs[0].shape if at == 3 else [1] * len(perm)
    resized = [a for a, number in zip(axes, numbers, strict=True) if same[a] != number]
    if any(perm[axis] < 2 for axis in resized):
        return Skip("Resize would resize an axis in front of the image")
    if attrs.get("mode", "nearest") != "nearest" and not _same_places(resized, perm):
        return Skip("Resize would interpolate its axes in another order, which rounds another way")
    if "axes" in attrs:
        attrs["axes"] = [perm[axis] for axis in axes]
    else:
        numbers = numbers[[perm.index(axis) for axis in range(len(perm))]]
    # the region of interest, input 1, only counts for tf_crop_and_resize
    inputs = [node.inputs[0], *(gs.Variable.empty() for _ in range(at - 1)), numbers]
    return Turned(tuple(inputs), (0,), attrs, perm)


def _same_places(resized: list[int], perm: tuple[int, ...]) -> bool:
    """Whether ONNX Runtime takes the same axes for rows and for columns in the other order.

    Of four axes they are the last two, or those in the middle where the last one isn't resized and
    the second one is.
    """
    turned = [perm[axis] for axis in resized]

    def places(axes: list[int]) -> list[int]:
        last = len(perm) == 4 and 1 in axes and 3 not in axes
        return [axis + last for axis in axes]

    return places(resized) == places(turned)


def turned_cumsum(node: gs.Node, perm: tuple[int, ...]) -> Turned | Skip:
    """CumSum along the axis by its other name; every row adds in the order it did."""
    axis = constant(node.inputs[1])
    if axis is None:
        return Skip("the axis of CumSum is computed at run time")
    moved = np.full(axis.shape, perm[int(axis.reshape(-1)[0]) % len(perm)], axis.dtype)
    return Turned((node.inputs[0], moved), (0,), dict(node.attrs), perm)


def turned_shape(node: gs.Node, perm: tuple[int, ...]) -> Turned:
    """The sizes in the order they were asked for in."""
    asked = perm[slice(node.attrs.get("start"), node.attrs.get("end"))]
    return Turned((node.inputs[0],), (0,), {}, (0,), partial(_sizes, asked))


def _sizes(
    asked: Sequence[int],
    inputs: Sequence[gs.Tensor | np.ndarray],
    outputs: Sequence[gs.Variable],
) -> tuple[New, ...]:
    whole = gs.Variable("", np.int64)
    gather = New("Gather", (whole, np.asarray(asked, np.int64)), tuple(outputs), {"axis": 0})
    return (New("Shape", (inputs[0],), (whole,)), gather)


CAREFUL: dict[str, Callable[[gs.Node, tuple[int, ...]], Turned | Skip | None]] = {
    "CumSum": turned_cumsum,
    "Resize": turned_resize,
    "Shape": turned_shape,
}
