"""What Slice, Split and Concat nodes take from which axis, read off the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, rank

_TO_THE_END = np.iinfo(np.int64).max
# exporters write "to the end" as the largest int32 or int64
_LARGE = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Cut:
    """Elements start, start + step, ... below stop of one axis; stop None is its end."""

    start: int
    stop: int | None
    step: int = 1

    def within(self, outer: Cut) -> Cut:
        """The same elements counted from where `outer` counts, whose result this one cuts."""
        stop = None if self.stop is None else outer.start + self.stop * outer.step
        if outer.stop is not None:
            stop = outer.stop if stop is None else min(stop, outer.stop)
        return Cut(outer.start + self.start * outer.step, stop, outer.step * self.step)


def size(tensor: gs.Tensor, axis: int) -> int | None:
    """The length of one axis; None when it is symbolic or unknown."""
    length = None if tensor.shape is None else tensor.shape[axis]
    return length if isinstance(length, int) and length >= 0 else None


def axis_of(node: gs.Node) -> int | None:
    """The axis of a Concat or Split, counted from the front; None when that is unknown."""
    axis = int(node.attrs.get("axis", 0))
    if axis >= 0:
        return axis
    dimensions = rank(node.inputs[0])
    return None if dimensions is None else axis + dimensions


def cuts_of(node: gs.Node) -> dict[int, Cut] | None:
    """What a Slice takes from each axis it names; None when that isn't known before it runs, or
    when it turns an axis around."""
    given = [constant(value) for value in node.inputs[1:] if not value.is_empty()]
    if len(given) != len(node.inputs) - 1 or any(values is None for values in given):
        return None
    starts, ends, *more = ([int(v) for v in np.asarray(values).reshape(-1)] for values in given)
    axes = more[0] if more else list(range(len(starts)))
    steps = more[1] if len(more) > 1 else [1] * len(starts)
    cuts = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        front = _from_the_front(node.inputs[0], axis)
        cut = None if front is None or step < 1 else _cut(size(node.inputs[0], front), start, end)
        if front is None or cut is None:
            return None
        cuts[front] = Cut(cut.start, cut.stop, step)
    return cuts


def takes_all(tensor: gs.Tensor, cuts: Mapping[int, Cut]) -> bool:
    """Whether nothing of the tensor is left out."""
    return all(
        cut.start == 0 and cut.step == 1 and cut.stop in (None, size(tensor, axis))
        for axis, cut in cuts.items()
    )


def slice_inputs(cuts: Mapping[int, Cut]) -> tuple[np.ndarray, ...]:
    """starts, ends, axes and steps of a Slice that takes those cuts."""
    ends = [_TO_THE_END if cut.stop is None else cut.stop for cut in cuts.values()]
    starts = [cut.start for cut in cuts.values()]
    steps = [cut.step for cut in cuts.values()]
    return tuple(np.array(values, np.int64) for values in (starts, ends, list(cuts), steps))


def _from_the_front(tensor: gs.Tensor, axis: int) -> int | None:
    if axis >= 0:
        return axis
    dimensions = rank(tensor)
    return None if dimensions is None else axis + dimensions


def _cut(length: int | None, start: int, end: int) -> Cut | None:
    if length is not None:
        low, high, _ = slice(start, end).indices(length)
        return Cut(low, high)
    if start < 0 or end < 0:
        return None
    return Cut(start, None if end >= _LARGE else end)
