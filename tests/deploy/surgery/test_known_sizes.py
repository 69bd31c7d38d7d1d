"""Sizes followed from the inputs down, held against those of every value that was computed."""

from __future__ import annotations

import onnx
import pytest
from helpers import feeds_for, model_from, run, weight
from hypothesis import HealthCheck, given, settings
from random_graphs import BATCH, RandomGraph, random_graphs

from deploy.artifacts.model import Model
from deploy.surgery.graph import to_graph, verified
from deploy.surgery.known_sizes import numbers_of, sizes_of
from deploy.surgery.size import Atom, Floored, Named, Size, Whole


def valued(size: Size, dims: dict[str, int]) -> int | None:
    """The size for concrete dimensions; None where it is unknown."""

    def atom(a: Atom) -> int | None:
        if isinstance(a, Named):
            return dims[a.name]
        if isinstance(a, Whole):
            return valued(a.sum, dims)
        if isinstance(a, Floored):
            inner = valued(a.numerator, dims)
            return None if inner is None else inner // a.divisor
        return None

    total = 0
    for monomial, factor in size.terms:
        assert factor.denominator == 1
        for a, power in monomial:
            value = atom(a)
            if value is None:
                return None
            factor *= value**power
        total += int(factor)
    return total


def check(model: Model, dims: dict[str, int], batch: int) -> int:
    """How many sizes were known and vary; all of them are what ONNX Runtime gives."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.output[:]
    made = {v.name: v for v in (*model.proto.graph.value_info, *model.proto.graph.output)}
    proto.graph.output.extend(
        made[n] for node in proto.graph.node for n in node.output if n in made
    )
    whole = Model(proto, "all")
    results = run(whole, feeds_for(whole, batch=batch))
    known = 0
    for tensor in to_graph(whole).tensors().values():
        sizes = sizes_of(tensor)
        if tensor.name not in results or sizes is None:
            continue
        real = results[tensor.name]
        assert len(sizes) == real.ndim, tensor.name
        for size, length in zip(sizes, real.shape, strict=True):
            assert valued(size, dims) in (length, None), tensor.name
            known += size.number is None and valued(size, dims) is not None
        numbers = numbers_of(tensor)
        if numbers is not None and numbers.dtype == object:
            for number, value in zip(numbers.reshape(-1), real.reshape(-1), strict=True):
                assert valued(number, dims) in (int(value), None), tensor.name
    return known


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(graph=random_graphs(["copies", "computes", "channels", "reshape"]))
def test_random_graphs(graph: RandomGraph) -> None:
    check(Model(verified(graph.model, "random"), "random"), {"N": BATCH}, BATCH)


LAYERS = """
g (float[N,4,H,W] x, float[K] k) => (float[a,b,c,d] y) <
  int64[1] one = {1}, int64[1] two = {2},
  int64[2] axes = {2, 3}, int64[1] ten = {10}, int64 last = {-1}> {
    c1 = Conv <strides = [2, 1], pads = [1, 0, 1, 0]> (x, w)
    c2 = Conv <dilations = [2, 1], pads = [2, 1, 2, 1]> (x, w)
    c3 = Conv <auto_pad = "SAME_UPPER", strides = [3, 2]> (x, w)
    c4 = Conv <group = 6> (c1, dw)
    p1 = MaxPool <kernel_shape = [2, 3], strides = [2, 2]> (c1)
    p2 = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (c1)
    p3 = GlobalAveragePool (c2)
    t = Transpose <perm = [0, 2, 3, 1]> (x)
    mm = MatMul (t, m)
    f = Flatten <axis = 2> (t)
    r = ReduceMean <axes = [2, -1], keepdims = 0> (c2)
    r2 = ReduceMax <axes = [1]> (c2)
    u = Unsqueeze (r, two)
    s = Squeeze (p3, axes)
    b = Add (c2, p3)
    j = Concat <axis = 3> (c1, c1)
    g1 = Gather <axis = 2> (x, last)
    cut = Slice (x, one, ten, two)
    h1, h2 = Split <axis = 1> (x)
    shape = Shape (c1)
    count = Size (c1)
    some = Shape <start = -2> (p1)
    part = Slice (shape, one, ten)
    all = ReduceProd <keepdims = 0> (part)
    plus = Add (some, one)
    seven = Cast <to = 1> (plus)
    q = Floor (seven)
    back = Cast <to = 7> (q)
    y = Relu (x)
}
"""


@pytest.mark.parametrize("size", [5, 6, 8, 11])
def test_layers(size: int) -> None:
    weights = {"w": weight(6, 4, 3, 3), "dw": weight(6, 1, 1, 1), "m": weight(4, 6)}
    model = model_from(LAYERS, weights)
    known = check(Model(verified(model.proto, "m"), "m"), dict.fromkeys("NHWK", size), size)
    assert known > 40
