"""What operators make of the sizes of what they read: one rule per kind of operator.

An operator without a rule here gives sizes that nothing is known of, unless ONNX's own shape
inference finds numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.axis_order import permutation
from deploy.surgery.elementwise import ELEMENTWISE
from deploy.surgery.size import Size, Unknown, product

Sizes = tuple[Size, ...]


@dataclass(frozen=True)
class Facts:
    """A tensor's sizes (None: not even their number is known), and its numbers where it holds
    shape arithmetic: an array of Size or bool."""

    sizes: Sizes | None
    numbers: np.ndarray | None


Rule = Callable[[gs.Node, Sequence[Facts]], "Sizes | None"]


def computed_sizes(node: gs.Node, index: int, inputs: Sequence[Facts]) -> Sizes | None:
    """The sizes of one of a node's outputs; None where no rule tells."""
    if node.domain not in (None, "", "ai.onnx") or not inputs:
        return None
    if node.op in ELEMENTWISE:
        return broadcast([facts.sizes for facts in inputs])
    rule = _RULES.get(node.op)
    if rule is None or (index and node.op != "Split"):
        return None
    return rule(node, inputs)


def integers(facts: Facts) -> np.ndarray | None:
    """The numbers of a tensor as int64; None where one isn't known before it runs."""
    if facts.numbers is None or facts.numbers.dtype != object:
        return None
    flat = [size.number for size in facts.numbers.reshape(-1)]
    if any(value is None for value in flat):
        return None
    return np.array(flat, np.int64).reshape(facts.numbers.shape)


def target_sizes(before: Sizes, target: Sequence[Size], *, zero_copies: bool) -> Sizes | None:
    """What a Reshape makes of its target; None where a 0 or -1 may hide in it."""
    found: list[Size | None] = []
    for axis, size in enumerate(target):
        if size.number == 0 and zero_copies:
            found.append(before[axis] if axis < len(before) else None)
        elif size.number == -1:
            found.append(None)
        # what may be 0 is a copy then: the same where it says so anyway
        elif (size.least or 0) >= 1 or (axis < len(before) and size == before[axis]):
            found.append(size)
        else:
            return None
    free = [axis for axis, size in enumerate(found) if size is None]
    if len(free) > 1:
        return None
    if free:
        found[free[0]] = product(before).over(product(size for size in found if size is not None))
    sizes = [size for size in found if size is not None]
    return tuple(sizes) if len(sizes) == len(found) else None


def broadcast(all_sizes: Sequence[Sizes | None]) -> Sizes | None:
    """The sizes of what broadcasts; None where those of a part are unknown."""
    if any(sizes is None for sizes in all_sizes):
        return None
    known = [sizes for sizes in all_sizes if sizes is not None]
    rank = max(len(sizes) for sizes in known)
    one = Size.of(1)
    padded = [(one,) * (rank - len(sizes)) + sizes for sizes in known]
    return tuple(_joined(column) for column in zip(*padded, strict=True))


def _joined(sizes: Sequence[Size]) -> Size:
    """One size of several that broadcast."""
    others = {size for size in sizes if size.number != 1}
    numbers = [size for size in others if size.number is not None]
    if len(others) <= 1:
        return next(iter(others), Size.of(1))
    return numbers[0] if numbers else Size.of(Unknown())


def _like_first(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    return inputs[0].sizes


def _conv(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x, weight = inputs[0].sizes, inputs[1].sizes
    kernel = None if weight is None else [size.number for size in weight[2:]]
    if x is None or weight is None or kernel is None or any(k is None for k in kernel):
        return None
    return (x[0], weight[0], *_windows(node, x[2:], [k or 0 for k in kernel]))


def _pool(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x = inputs[0].sizes
    return None if x is None else (*x[:2], *_windows(node, x[2:], node.attrs["kernel_shape"]))


def _windows(node: gs.Node, space: Sizes, kernel: Sequence[int]) -> list[Size]:
    """How many windows fit along each spatial axis; an image smaller than one window is none."""
    rank, attrs = len(space), node.attrs
    strides, dilations = attrs.get("strides", [1] * rank), attrs.get("dilations", [1] * rank)
    pads, auto = attrs.get("pads", [0] * 2 * rank), attrs.get("auto_pad", "NOTSET")
    if attrs.get("ceil_mode", 0):
        return [Size.of(Unknown()) for _ in space]
    found = []
    for axis, size in enumerate(space):
        stride = int(strides[axis])
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            found.append((size + Size.of(stride - 1)).floor_over(stride))
            continue
        padded = 0 if auto == "VALID" else int(pads[axis]) + int(pads[axis + rank])
        reach = int(dilations[axis]) * (int(kernel[axis]) - 1) + 1
        found.append((size + Size.of(padded - reach)).floor_over(stride) + Size.of(1))
    return found


def _global_pool(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x = inputs[0].sizes
    return None if x is None else (*x[:2], *(Size.of(1) for _ in x[2:]))


def _transpose(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x, perm = inputs[0].sizes, permutation(node)
    return None if x is None or perm is None else tuple(x[axis] for axis in perm)


def _concat(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    parts = [facts.sizes for facts in inputs if facts.sizes is not None]
    if len(parts) != len(inputs) or len({len(part) for part in parts}) != 1:
        return None
    axis = int(node.attrs["axis"]) % len(parts[0])
    found = list(parts[0])
    for part in parts[1:]:
        found[axis] = found[axis] + part[axis]
    return tuple(found)


def _split(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x = inputs[0].sizes
    if x is None:
        return None
    axis = int(node.attrs.get("axis", 0)) % len(x)
    # the axis itself: only where inference finds its length
    return (*x[:axis], Size.of(Unknown()), *x[axis + 1 :])


def _slice(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x = inputs[0].sizes
    axes = integers(inputs[3]) if len(inputs) > 3 else np.arange(len(x or ()))
    if x is None or axes is None:
        return None
    cut = {int(axis) % len(x) for axis in axes.reshape(-1)}
    return tuple(Size.of(Unknown()) if axis in cut else size for axis, size in enumerate(x))


def _reshape(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x, target = inputs[0].sizes, inputs[1].numbers
    if x is None or target is None or target.ndim != 1:
        return None
    return target_sizes(x, list(target), zero_copies=not node.attrs.get("allowzero", 0))


def _expand(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    target = inputs[1].numbers
    if target is None or target.ndim != 1 or target.dtype != object:
        return None
    if any((size.least or 0) < 1 for size in target):
        return None
    return broadcast([inputs[0].sizes, tuple(target)])


def _axes(node: gs.Node, inputs: Sequence[Facts]) -> list[int] | None:
    if "axes" in node.attrs:
        return [int(axis) for axis in node.attrs["axes"]]
    found = integers(inputs[1]) if len(inputs) > 1 else None
    return None if found is None else [int(axis) for axis in found.reshape(-1)]


def _squeeze(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x, axes = inputs[0].sizes, _axes(node, inputs)
    if x is None or axes is None:
        return None
    gone = {axis % len(x) for axis in axes}
    return tuple(size for axis, size in enumerate(x) if axis not in gone)


def _unsqueeze(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x, axes = inputs[0].sizes, _axes(node, inputs)
    if x is None or axes is None:
        return None
    rank, kept = len(x) + len(axes), iter(x)
    added = {axis % rank for axis in axes}
    return tuple(Size.of(1) if axis in added else next(kept) for axis in range(rank))


def _flatten(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x = inputs[0].sizes
    axis = int(node.attrs.get("axis", 1))
    return None if x is None else (product(x[:axis]), product(x[axis:]))


def _gather(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x, at = inputs[0].sizes, inputs[1].sizes
    if x is None or at is None:
        return None
    axis = int(node.attrs.get("axis", 0)) % len(x)
    return (*x[:axis], *at, *x[axis + 1 :])


def _reduce(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x, axes = inputs[0].sizes, _axes(node, inputs)
    if x is None or axes is None:
        return None
    gone = {axis % len(x) for axis in axes}
    if node.attrs.get("keepdims", 1):
        return tuple(Size.of(1) if axis in gone else size for axis, size in enumerate(x))
    return tuple(size for axis, size in enumerate(x) if axis not in gone)


def _matmul(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x, y = inputs[0].sizes, inputs[1].sizes
    if x is None or y is None or len(x) < 2 or len(y) < 2:
        return None
    batch = broadcast([x[:-2], y[:-2]])
    return None if batch is None else (*batch, x[-2], y[-1])


def _gemm(node: gs.Node, inputs: Sequence[Facts]) -> Sizes | None:
    x, y = inputs[0].sizes, inputs[1].sizes
    if x is None or y is None:
        return None
    rows, columns = node.attrs.get("transA", 0), node.attrs.get("transB", 0)
    return (x[1 if rows else 0], y[0 if columns else 1])


_RULES: dict[str, Rule] = {
    "Conv": _conv,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Flatten": _flatten,
    "Expand": _expand,
    "Gather": _gather,
    "MatMul": _matmul,
    "Gemm": _gemm,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    **dict.fromkeys(
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"),
        _reduce,
    ),
    **dict.fromkeys(
        (
            *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "Softmax"),
            *("GroupNormalization", "RMSNormalization", "LogSoftmax", "Dropout", "Softplus"),
            *("QuantizeLinear", "DequantizeLinear", "LRN", "LpNormalization"),
        ),
        _like_first,
    ),
}
