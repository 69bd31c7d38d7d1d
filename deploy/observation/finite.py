"""Which tensors can hold neither NaN nor Inf, as long as what they are made of isn't huge.

A maximum may drop a NaN, so extremes alone don't prove that a tensor is finite, and another pass
over all its values costs as much as the extremes. But finite numbers of known size that are only
added, and multiplied with finite weights, give finite numbers; so what was observed of the tensors
in front is proof enough.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# what an observed tensor has to lie within for the proof to hold
LIMIT = 2.0**40
# no proof beyond: sums of many such values must not overflow float32 on the way
_HUGE = 2.0**90
# formats that overflow long before that
_SMALL_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def finite_if_small(graph: onnx.GraphProto, observed: Collection[str]) -> frozenset[str]:
    """Those observed tensors that are finite if every observed one lies within ±LIMIT, as far as
    its extremes show, and the observed ones not named here are finite."""
    bounds = _Bounds(graph)
    if bounds.small:
        return frozenset()
    found = set()
    for value in graph.input:
        if value.name in observed:
            bounds.known[value.name] = LIMIT
    for node in graph.node:
        bound = bounds.of(node)
        for name in node.output:
            if bound is not None and name in observed:
                found.add(name)
            if name in observed:
                bounds.known[name] = min(LIMIT, LIMIT if bound is None else bound)
            elif bound is not None:
                bounds.known[name] = bound
    return frozenset(found)


class _Bounds:
    """The largest magnitude that finite values can have, where that is known: by name."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.given = {i.name: i for i in graph.initializer}
        types = [v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info)]
        types += [i.data_type for i in graph.initializer]
        self.small = any(t in _SMALL_FLOATS for t in types)
        self.known: dict[str, float] = {}
        self._largest: dict[str, float] = {}

    def of(self, node: onnx.NodeProto) -> float | None:
        """A bound of everything the node gives; None where nothing is known."""
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        bound = rule(self, node) if rule is not None and node.input else None
        return bound if bound is not None and bound < _HUGE else None

    def input(self, node: onnx.NodeProto, index: int) -> float | None:
        """A bound of one input, computed or constant."""
        name = node.input[index]
        return self.largest(name) if name in self.given else self.known.get(name)

    def largest(self, name: str) -> float | None:
        """The largest magnitude in a constant, if it is finite."""
        if name not in self._largest:
            x = np.asarray(numpy_helper.to_array(self.given[name]))
            top = max(float(x.max()), -float(x.min())) if x.size and x.dtype.kind == "f" else np.inf
            self._largest[name] = top
        return self._largest[name] if np.isfinite(self._largest[name]) else None

    def size(self, name: str) -> int:
        """How many values a constant has."""
        return int(np.prod(self.given[name].dims, dtype=np.int64))


def _same(bounds: _Bounds, node: onnx.NodeProto) -> float | None:
    return bounds.input(node, 0)


def _one(bounds: _Bounds, node: onnx.NodeProto) -> float | None:
    return None if bounds.input(node, 0) is None else 1.0


def _all(
    join: Callable[[list[float]], float],
) -> Callable[[_Bounds, onnx.NodeProto], float | None]:
    def rule(bounds: _Bounds, node: onnx.NodeProto) -> float | None:
        found = [bounds.input(node, i) for i in range(len(node.input))]
        some = [bound for bound in found if bound is not None]
        return join(some) if len(some) == len(found) else None

    return rule


def _weighted(bounds: _Bounds, node: onnx.NodeProto) -> float | None:
    """|W x + b| <= count(W) max|W| max|x| + max|b|, far from tight and far from overflow."""
    x = bounds.input(node, 0)
    weight = node.input[1]
    w = bounds.largest(weight) if weight in bounds.given else None
    b: float | None = 0.0
    if len(node.input) > 2 and node.input[2]:
        b = bounds.input(node, 2)
    if x is None or w is None or b is None:
        return None
    given = _attributes(node)
    alpha, beta = (abs(float(given.get(name, 1.0))) for name in ("alpha", "beta"))
    return alpha * bounds.size(weight) * w * x + beta * b


def _normalized(bounds: _Bounds, node: onnx.NodeProto) -> float | None:
    """BatchNormalization as inference runs it; its smallest variance is taken for 0."""
    found = [bounds.input(node, i) for i in range(5)]
    x, gamma, beta, mean, variance = found
    if x is None or gamma is None or beta is None or mean is None or variance is None:
        return None
    epsilon = float(_attributes(node).get("epsilon", 1e-5))
    return gamma * (x + mean) / float(np.sqrt(epsilon)) + beta if epsilon > 0 else None


def _clipped(bounds: _Bounds, node: onnx.NodeProto) -> float | None:
    """max(|x|, low, -high): an end acts only where it is nearer to zero, or beyond it."""
    x = bounds.input(node, 0)
    given = _attributes(node)
    ends = [float(given.get("min", 0.0)), -float(given.get("max", 0.0))]
    for index, name in enumerate(node.input[1:3]):
        if name not in bounds.given and name:
            return None
        if name:
            end = np.asarray(numpy_helper.to_array(bounds.given[name]), np.float64)
            ends.append(float((-end if index else end).max(initial=0.0)))
    return None if x is None else max(x, *ends)


def _leaked(bounds: _Bounds, node: onnx.NodeProto) -> float | None:
    x = bounds.input(node, 0)
    return None if x is None else x * max(1.0, abs(float(_attributes(node).get("alpha", 0.01))))


def _padded(bounds: _Bounds, node: onnx.NodeProto) -> float | None:
    x = bounds.input(node, 0)
    value: float | None = abs(float(_attributes(node).get("value", 0.0)))
    if len(node.input) > 2 and node.input[2]:
        value = bounds.input(node, 2)
    return None if x is None or value is None else max(x, value)


def _resized(bounds: _Bounds, node: onnx.NodeProto) -> float | None:
    given = _attributes(node)
    if given.get("mode", b"nearest") not in (b"nearest", b"linear"):
        return None
    x = bounds.input(node, 0)
    return None if x is None else x + abs(float(given.get("extrapolation_value", 0.0)))


def _attributes(node: onnx.NodeProto) -> Mapping[str, float | bytes]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


_RULES: Mapping[str, Callable[[_Bounds, onnx.NodeProto], float | None]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _weighted),
    "BatchNormalization": _normalized,
    "Clip": _clipped,
    "LeakyRelu": _leaked,
    "Pad": _padded,
    "Resize": _resized,
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Tanh"), _one),
    **dict.fromkeys(("Add", "Sub", "Sum"), _all(sum)),
    "Mul": _all(lambda factors: float(np.prod(factors))),
    **dict.fromkeys(("Concat", "Max", "Min"), _all(max)),
    # what moves values, drops some, lets them shrink, or takes their mean or maximum
    **dict.fromkeys(
        (
            *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Slice"),
            *("Split", "DepthToSpace", "SpaceToDepth", "Relu", "HardSwish", "MaxPool"),
            *("AveragePool", "GlobalMaxPool", "GlobalAveragePool", "ReduceMean", "ReduceMax"),
        ),
        _same,
    ),
}
