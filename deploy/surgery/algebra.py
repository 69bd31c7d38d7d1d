"""What a run of element-wise arithmetic computes, whatever the exporter's spelling.

`polynomial` reads a value as a polynomial in tensors it is given (x, and perhaps erf(x)), `ramp` as
clip(slope * x + offset, low, high): two graphs that compute the same give the same coefficients,
however their Mul, Div, Add and Clip are ordered. Both only follow constants that hold one value
and leave the shape alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, producer, rank

_DEEPEST = 12
_HIGHEST_POWER = 4

# exponents of the given tensors -> coefficient
Polynomial = dict[tuple[int, ...], float]


@dataclass(frozen=True)
class Ramp:
    """clip(slope * x + offset, low, high), which `nodes` compute from x."""

    x: gs.Tensor
    slope: float = 1.0
    offset: float = 0.0
    low: float = -inf
    high: float = inf
    nodes: tuple[gs.Node, ...] = ()

    def times(self, factor: float) -> Ramp:
        """The ramp multiplied by a positive number."""
        return replace(
            self,
            slope=self.slope * factor,
            offset=self.offset * factor,
            low=self.low * factor,
            high=self.high * factor,
        )


def scalar(tensor: gs.Tensor, beside: gs.Tensor, kinds: str = "f") -> float | None:
    """The one value of a constant that doesn't change the rank of the tensor it is combined with;
    None for everything else. kinds: NumPy's letters of the types it may have."""
    values = constant(tensor)
    if values is None or values.size != 1 or values.dtype.kind not in kinds:
        return None
    if values.ndim and values.ndim > (rank(beside) or 0):
        return None
    return float(values.reshape(()))


def close(got: float, wanted: float, dtype: np.dtype | type | None) -> bool:
    """Whether a coefficient is the wanted one, up to its rounding in float32 (float16)."""
    tolerance = 1e-3 if dtype == np.float16 else 1e-6
    return bool(abs(got - wanted) <= tolerance * max(abs(wanted), 1e-9))


def same_polynomial(
    got: Polynomial | None, wanted: Polynomial, dtype: np.dtype | type | None
) -> bool:
    """Whether both have the same terms with the same coefficients."""
    if got is None or set(got) != set(wanted):
        return False
    return all(close(value, wanted[key], dtype) for key, value in got.items())


def scalar_operand(node: gs.Node) -> tuple[gs.Tensor, float, int] | None:
    """Of a node with one constant operand: the other operand, the constant, the constant's index;
    None when neither or both of the two operands are constants."""
    if len(node.inputs) != 2:
        return None
    for index in (0, 1):
        data = node.inputs[1 - index]
        value = scalar(node.inputs[index], data)
        if value is not None and not isinstance(data, gs.Constant):
            return data, value, index
    return None


def polynomial(tensor: gs.Tensor, symbols: Sequence[gs.Tensor]) -> Polynomial | None:
    """The tensor as a polynomial in the symbols; None when something else goes into it."""
    return _polynomial(tensor, {id(s): i for i, s in enumerate(symbols)}, symbols[0], _DEEPEST)


def _polynomial(
    tensor: gs.Tensor, symbols: Mapping[int, int], beside: gs.Tensor, depth: int
) -> Polynomial | None:
    count = len(symbols)
    if id(tensor) in symbols:
        return {tuple(int(i == symbols[id(tensor)]) for i in range(count)): 1.0}
    # integers too: the exponent of Pow has a type of its own
    value = scalar(tensor, beside, "fi")
    if value is not None:
        return {(0,) * count: value}
    node = producer(tensor)
    if node is None or depth == 0 or node.op not in _ARITHMETIC:
        return None
    terms = []
    for operand in node.inputs:
        term = _polynomial(operand, symbols, beside, depth - 1)
        if term is None:
            return None
        terms.append(term)
    return _combined(node.op, terms)


_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Neg", "Pow", "Identity")


def _combined(op: str, terms: list[Polynomial]) -> Polynomial | None:
    first = terms[0]
    if op in ("Neg", "Identity"):
        return _scaled(first, -1.0 if op == "Neg" else 1.0)
    second = terms[1]
    if op in ("Add", "Sub"):
        return _sum(first, second if op == "Add" else _scaled(second, -1.0))
    if op == "Mul":
        return _product(first, second)
    number = second.get((0,) * len(next(iter(second)))) if len(second) == 1 else None
    if number is None:
        return None
    if op == "Div":
        return _scaled(first, 1 / number) if number else None
    if number not in (1.0, 2.0, 3.0, 4.0):
        return None
    power: Polynomial | None = first
    for _ in range(int(number) - 1):
        power = None if power is None else _product(power, first)
    return power


def _scaled(terms: Polynomial, factor: float) -> Polynomial:
    return {key: value * factor for key, value in terms.items()}


def _sum(first: Polynomial, second: Polynomial) -> Polynomial:
    total = dict(first)
    for key, value in second.items():
        total[key] = total.get(key, 0.0) + value
    return total


def _product(first: Polynomial, second: Polynomial) -> Polynomial | None:
    total: Polynomial = {}
    for one, a in first.items():
        for two, b in second.items():
            key = tuple(p + q for p, q in zip(one, two, strict=True))
            if sum(key) > _HIGHEST_POWER:
                return None
            total[key] = total.get(key, 0.0) + a * b
    return total


def ramps(tensor: gs.Tensor) -> Iterator[Ramp]:
    """The tensor as a ramp of itself, of what it is computed from, and so on upwards."""
    ramp = Ramp(tensor)
    for _ in range(_DEEPEST):
        yield ramp
        node = producer(ramp.x)
        further = None if node is None else _through(ramp, node)
        if further is None:
            return
        ramp = further


def _through(ramp: Ramp, node: gs.Node) -> Ramp | None:
    """The ramp in terms of the node's input; None when the node isn't a piece of a ramp."""
    ramp = replace(ramp, nodes=(*ramp.nodes, node))
    if node.op == "HardSigmoid":
        inner = _clamped(ramp, 0.0, 1.0)
        alpha, beta = node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)
        return _affine(inner, node.inputs[0], float(alpha), float(beta))
    if node.op == "Relu":
        return replace(_clamped(ramp, 0.0, inf), x=node.inputs[0])
    if node.op == "Clip":
        bounds = clip_bounds(node)
        return None if bounds is None else replace(_clamped(ramp, *bounds), x=node.inputs[0])
    if node.op == "Neg":
        return _affine(ramp, node.inputs[0], -1.0, 0.0)
    operand = scalar_operand(node)
    if operand is None:
        return None
    data, value, index = operand
    if node.op in ("Min", "Max"):
        bounds = (-inf, value) if node.op == "Min" else (value, inf)
        return replace(_clamped(ramp, *bounds), x=data)
    if node.op == "Mul":
        return _affine(ramp, data, value, 0.0)
    if node.op == "Div" and index == 1 and value:
        return _affine(ramp, data, 1 / value, 0.0)
    if node.op == "Add":
        return _affine(ramp, data, 1.0, value)
    if node.op == "Sub":
        return _affine(ramp, data, *((1.0, -value) if index == 1 else (-1.0, value)))
    return None


def _affine(ramp: Ramp, x: gs.Tensor, scale: float, shift: float) -> Ramp:
    slope, offset = ramp.slope * scale, ramp.offset + ramp.slope * shift
    return replace(ramp, x=x, slope=slope, offset=offset)


def _clamped(ramp: Ramp, low: float, high: float) -> Ramp:
    """The ramp of clip(t, low, high), as a ramp of t."""
    ends = sorted((ramp.slope * low + ramp.offset, ramp.slope * high + ramp.offset))
    least, most = (min(max(end, ramp.low), ramp.high) for end in ends)
    return replace(ramp, low=least, high=most)


def clip_bounds(node: gs.Node) -> tuple[float, float] | None:
    """What a Clip clips to, in either of its forms; None when that is computed at run time."""
    bounds = [float(node.attrs.get("min", -inf)), float(node.attrs.get("max", inf))]
    for index, tensor in enumerate(node.inputs[1:3]):
        if tensor.is_empty():
            continue
        values = constant(tensor)
        if values is None or values.size != 1 or values.dtype.kind != "f":
            return None
        bounds[index] = float(values.reshape(()))
    return (bounds[0], bounds[1]) if bounds[0] <= bounds[1] else None


def sources(node: gs.Node, ops: Sequence[str], depth: int = 4) -> list[gs.Tensor]:
    """What the named operators compute that arithmetic carries into the node; nearest first."""
    found: list[gs.Tensor] = []
    level = [node]
    for _ in range(depth):
        above = [producer(tensor) for n in level for tensor in n.inputs]
        nodes = [n for n in above if n is not None]
        found += [n.outputs[0] for n in nodes if n.op in ops]
        level = [n for n in nodes if n.op in _ARITHMETIC]
    return list({id(tensor): tensor for tensor in found}.values())


def origins(tensor: gs.Tensor, depth: int = 5) -> list[gs.Tensor]:
    """The tensor and what arithmetic makes it from: where its x may be; nearest first."""
    found, level = [tensor], [tensor]
    for _ in range(depth):
        nodes = [producer(t) for t in level]
        level = [t for n in nodes if n is not None and n.op in _ARITHMETIC for t in n.inputs]
        level = [t for t in level if not isinstance(t, gs.Constant)]
        found += level
    return list({id(t): t for t in found}.values())
