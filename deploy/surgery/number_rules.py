"""What the operators of shape arithmetic make of numbers they are given as sizes.

Floats too, as exact fractions: x.size(2) * 0.5 goes through Cast, Mul, Floor and Cast. A float32
holds every integer below 2^24 and rounds no quotient of such across an integer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.size import Size, product
from deploy.surgery.size_rules import Facts, integers

# what computes with more is data, not a shape
FEW = 64
# powers of two: products with them are exact in any float type
_SMALLEST_PART = 256

Numbers = np.ndarray  # of Size, or of bool


def as_sizes(values: np.ndarray | None) -> Numbers | None:
    """An array of a few constants as sizes; None where one isn't exact."""
    if values is None or values.size > FEW or values.dtype.kind not in "iufb":
        return None
    if values.dtype.kind == "b":
        return values
    flat = [_exact(value) for value in values.reshape(-1).tolist()]
    return None if any(value is None for value in flat) else _array(flat, values.shape)


def computed_numbers(node: gs.Node, index: int, inputs: Sequence[Facts]) -> Numbers | None:
    """What the node computes; None where it isn't shape arithmetic, or not for certain."""
    rule = _RULES.get(node.op)
    if rule is None or index or node.domain not in (None, "", "ai.onnx"):
        return None
    if not inputs or (node.op not in ("Shape", "Size") and any(_unknown(f) for f in inputs)):
        return None
    found = rule(node, inputs)
    return None if found is None or found.size > FEW else found


def _unknown(facts: Facts) -> bool:
    return facts.numbers is None and facts.sizes is not None


def _exact(value: float) -> Size | None:
    if not np.isfinite(value):
        return None
    fraction = Fraction(value)
    return Size.of(fraction) if fraction.denominator <= _SMALLEST_PART else None


def _array(flat: Sequence[object], shape: Sequence[int]) -> Numbers:
    made = np.empty(len(flat), object)
    made[:] = list(flat)
    return made.reshape(tuple(shape))


def _from_0_up(size: Size) -> bool:
    return size.least is not None and size.least >= 0


def _each(x: Numbers, function: Callable[[Size], Size | None]) -> Numbers | None:
    flat = [function(value) for value in x.reshape(-1)]
    return None if any(value is None for value in flat) else _array(flat, x.shape)


def _pairs(x: Numbers, y: Numbers, function: Callable[[Size, Size], object]) -> Numbers | None:
    if x.dtype != object or y.dtype != object:
        return None
    x, y = np.broadcast_arrays(x, y)
    flat = [function(a, b) for a, b in zip(x.reshape(-1), y.reshape(-1), strict=True)]
    return None if any(value is None for value in flat) else _array(flat, x.shape)


def _shape(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    sizes = inputs[0].sizes
    if sizes is None:
        return None
    kept = sizes[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
    return _array(kept, (len(kept),))


def _count(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    return None if inputs[0].sizes is None else _array([product(inputs[0].sizes)], ())


def _gather(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    at = integers(inputs[1])
    x = inputs[0].numbers
    if x is None or at is None or x.ndim == 0:
        return None
    axis = int(node.attrs.get("axis", 0)) % x.ndim
    if ((at < -x.shape[axis]) | (at >= x.shape[axis])).any():
        return None
    taken = np.empty((*x.shape[:axis], *at.shape, *x.shape[axis + 1 :]), x.dtype)
    taken[...] = np.take(x, at, axis)  # which alone would give one element of a scalar index bare
    return taken


def _slice(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    x, given = inputs[0].numbers, [integers(facts) for facts in inputs[1:]]
    if x is None or x.ndim != 1 or any(values is None or values.size != 1 for values in given):
        return None
    start, end, *more = (int(v.reshape(-1)[0]) for v in given if v is not None)
    return x[slice(start, end, more[1] if len(more) > 1 else 1)]


def _concat(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    parts = [facts.numbers for facts in inputs]
    if any(part is None or part.ndim == 0 for part in parts):
        return None
    return np.concatenate([p for p in parts if p is not None], int(node.attrs["axis"]))


def _reshaped(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    """Reshape, Squeeze, Unsqueeze and Flatten of a few numbers: their order stays."""
    x, shape = inputs[0].numbers, node.outputs[0].shape
    if x is None:
        return None
    if shape is not None and all(isinstance(d, int) and d >= 0 for d in shape):
        return x.reshape(tuple(shape)) if int(np.prod(shape)) == x.size else None
    return None


def _arithmetic(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    x, y = inputs[0].numbers, inputs[1].numbers
    functions: dict[str, Callable[[Size, Size], Size | None]] = {
        "Add": lambda a, b: a + b,
        "Sub": lambda a, b: a - b,
        "Mul": lambda a, b: a * b,
        "Div": _quotient_of(node),
    }
    return None if x is None or y is None else _pairs(x, y, functions[node.op])


def _quotient_of(node: gs.Node) -> Callable[[Size, Size], Size | None]:
    """Division as the node's type has it: integers lose their fraction."""
    kinds = [v.dtype for v in (*node.inputs, *node.outputs) if v.dtype is not None]
    kind = np.dtype(kinds[0]).kind if kinds and not isinstance(kinds[0], int) else ""

    def divided(a: Size, b: Size) -> Size | None:
        exact, number = a.over(b), b.number
        if kind == "f" or (exact is not None and exact.is_integral):
            return exact
        if kind not in "iu" or number is None or number < 1 or not _from_0_up(a):
            return None  # towards zero, which isn't down for what may be negative
        return a.floor_over(number)

    return divided


def _cast(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    x, to = inputs[0].numbers, int(node.attrs["to"])
    if x is None or x.dtype != object or to not in (1, 6, 7, 11):
        return None  # neither float, double nor a wide integer
    if to in (1, 11):
        return x

    def cut(value: Size) -> Size | None:
        if value.is_integral:
            return value
        return value.floor() if _from_0_up(value) else None

    return _each(x, cut)


def _rounded(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    x, minus = inputs[0].numbers, Size.of(-1)
    if x is None or x.dtype != object:
        return None
    if node.op == "Floor":
        return _each(x, lambda value: value.floor())
    return _each(x, lambda value: minus * (minus * value).floor())


def _product(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    x = inputs[0].numbers
    if x is None or x.ndim != 1 or x.dtype != object:
        return None
    return _array([product(x)], (1,) if node.attrs.get("keepdims", 1) else ())


def _filled(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    shape, value = integers(inputs[0]), node.attrs.get("value")
    if shape is None or int(np.prod(shape)) > FEW:
        return None
    given = np.asarray(getattr(value, "values", 0.0 if value is None else value))
    return as_sizes(np.broadcast_to(given.reshape(()), tuple(shape)))


def _equal(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    x, y = inputs[0].numbers, inputs[1].numbers
    found = None if x is None or y is None else _pairs(x, y, _same)
    return None if found is None else found.astype(bool)


def _same(a: Size, b: Size) -> bool | None:
    """Whether both are equal for certain, or differ for certain."""
    apart = a - b
    if apart.number is not None:
        return apart.number == 0
    return False if (apart.least or 0) > 0 or ((b - a).least or 0) > 0 else None


def _where(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    condition, x, y = (facts.numbers for facts in inputs)
    if condition is None or condition.dtype != bool or x is None or y is None:
        return None
    return np.where(condition, x, y) if x.dtype == y.dtype == object else None


def _kept(node: gs.Node, inputs: Sequence[Facts]) -> Numbers | None:
    return inputs[0].numbers


_RULES: dict[str, Callable[[gs.Node, Sequence[Facts]], Numbers | None]] = {
    "Shape": _shape,
    "Size": _count,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Cast": _cast,
    "ReduceProd": _product,
    "ConstantOfShape": _filled,
    "Equal": _equal,
    "Where": _where,
    "Identity": _kept,
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), _reshaped),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys(("Floor", "Ceil"), _rounded),
}
