"""Which channel goes where in a chain of Reshape, Transpose and the like, whatever the map's size.

Each axis is followed as a product of factors: [N, 12, H, W] read as [N, 2, 6, H, W] splits the 12
into 2 and 6, a Transpose swaps the two, and the next Reshape joins them again. Nothing is computed
with concrete sizes, so that what holds does so for any N, H and W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.axis_order import permutation
from deploy.surgery.graph import constant
from deploy.surgery.known_sizes import sizes_of
from deploy.surgery.size import Size

_SAME_ORDER = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(eq=False)
class _Factor:
    """One factor of an axis; `parts` once it was split, `index` once one index of it was taken."""

    size: Size
    parts: tuple[_Factor, ...] = ()
    index: int | None = None

    def leaves(self) -> list[_Factor]:
        if not self.parts:
            return [self]
        return [leaf for part in self.parts for leaf in part.leaves()]


@dataclass
class _Layout:
    """Per axis its factors, the slowest first."""

    axes: list[list[_Factor]] = field(default_factory=list)

    def leaves(self) -> list[list[_Factor]]:
        return [[leaf for factor in axis for leaf in factor.leaves()] for axis in self.axes]


def picked_channels(chain: Sequence[gs.Node]) -> np.ndarray | None:
    """For nodes that each read the one before: which channels of what the first one reads the last
    one gives, int64[C]; None where they aren't known to move whole channels and nothing else."""
    sizes = sizes_of(chain[0].inputs[0])
    if sizes is None or len(sizes) < 2 or sizes[1].number is None:
        return None
    source = _Layout([[] if size.number == 1 else [_Factor(size)] for size in sizes])
    layout = source
    for node in chain:
        after_node = _after(layout, node)
        if after_node is None:
            return None
        layout = after_node
    before, after = source.leaves(), layout.leaves()
    if len(before) != len(after) or any(
        before[axis] != after[axis] for axis in range(len(before)) if axis != 1
    ):
        return None
    return _order(before[1], after[1])


def _after(layout: _Layout, node: gs.Node) -> _Layout | None:
    """The layout of what the node makes; None where it does more than rearranging."""
    if node.op in _SAME_ORDER:
        sizes = sizes_of(node.outputs[0])
        return None if sizes is None else _reshaped(layout, sizes)
    if node.op == "Transpose":
        perm = permutation(node)
        return None if perm is None else _Layout([layout.axes[axis] for axis in perm])
    return _taken(layout, node) if node.op == "Gather" else None


def _reshaped(layout: _Layout, sizes: Sequence[Size]) -> _Layout | None:
    """The same elements in axes of other sizes, from the fastest to the slowest."""
    left = [leaf for axis in layout.leaves() for leaf in axis]
    axes: list[list[_Factor]] = []
    for size in reversed(sizes):
        axis: list[_Factor] = []
        while size.number != 1:
            if not left:
                return None
            factor = left.pop()
            more, within = size.over(factor.size), factor.size.over(size)
            if more is not None and more.is_integral:
                size = more
            elif within is not None and within.is_integral:
                factor.parts = (_Factor(within), _Factor(size))
                left.append(factor.parts[0])
                factor, size = factor.parts[1], Size.of(1)
            else:
                return None
            axis.insert(0, factor)
        axes.insert(0, axis)
    return None if left else _Layout(axes)


def _taken(layout: _Layout, node: gs.Node) -> _Layout | None:
    """One index of an axis, as Gather takes it with a scalar."""
    index = constant(node.inputs[1])
    if index is None or index.ndim:
        return None
    axis = int(node.attrs.get("axis", 0)) % len(layout.axes)
    factors = layout.leaves()[axis]
    if len(factors) != 1 or (count := factors[0].size.number) is None:
        return None
    factors[0].index = int(index) % count
    return _Layout([other for at, other in enumerate(layout.axes) if at != axis])


def _order(before: Sequence[_Factor], after: Sequence[_Factor]) -> np.ndarray | None:
    """The channels that the factors of an axis run over, in the order they have now."""
    taken = [factor for factor in before if factor.index is not None]
    if {*before} != {*taken, *after} or len(before) != len(taken) + len(after):
        return None
    counts = [factor.size.number or 0 for factor in before]
    numbered = np.arange(int(np.prod(counts))).reshape(counts)
    numbered = numbered[tuple(slice(None) if f.index is None else f.index for f in before)]
    left = [factor for factor in before if factor.index is None]
    return numbered.transpose([left.index(factor) for factor in after]).reshape(-1)
