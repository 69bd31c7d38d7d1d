"""Hypothesis strategy for small convolutional networks: layers that can absorb factors and
constants, and between them whatever may or may not let those through."""

from __future__ import annotations

import random_graphs as rg
from hypothesis import strategies as st
from onnx import ModelProto
from random_graphs import BATCH, COMPUTED, Dim, Draw, Layer, Sketch, Value


def activate(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    name = draw(st.sampled_from(["Relu", "Clip", "Relu", "LeakyRelu", "PRelu", "Abs", "Sigmoid"]))
    if name == "Clip":
        low, high = draw(st.sampled_from([(0.0, 6.0), (-1.0, 1.0), (-2.0, 0.5), (0.5, 2.0)]))
        ends = [s.weight(low), s.weight(high)]
        return [s.like("Clip", x, *draw(st.sampled_from([ends, ends[:1], ["", ends[1]]])))]
    if name == "PRelu":
        return [s.like("PRelu", x, s.weight(0.1 * s.random(*x.sizes[1:2], *[1] * (x.rank - 2))))]
    return [s.like(name, x)]


def combine(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Values of the same rank that broadcast against each other, in either order."""

    def fits(v: Value) -> bool:
        pairs = zip(v.shape, x.shape, strict=True)
        return v.rank == x.rank and all(a in (b, 1) for a, b in pairs)

    fitting = [v for v in reversed(s.pool) if v.rank == x.rank and fits(v)]
    op = draw(st.sampled_from(["Add", "Add", "Sub", "Max", "Min", "Sum", "Mul"]))
    count = draw(st.integers(1, 2)) if op in ("Max", "Min", "Sum") else 1
    others = [draw(st.sampled_from(fitting)) for _ in range(count)]
    parts = [x, *others] if draw(st.booleans()) else [*others, x]
    return s.emit(op, parts, (x.shape, x.dtype, COMPUTED))


def offset(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Plus, minus, times a constant: one number, one per channel, or one per pixel."""
    ones = [1] * (x.rank - 2)
    shapes = [(), (1,), (x.sizes[1], *ones), (1, x.sizes[1], *ones), tuple(x.sizes[1:])]
    constant = s.weight(s.random(*draw(st.sampled_from(shapes))))
    op = draw(st.sampled_from(["Add", "Sub", "Mul"]))
    parts = [x, constant] if draw(st.booleans()) else [constant, x]
    return s.emit(op, parts, (x.shape, x.dtype, COMPUTED))


def excite(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Squeeze-and-excitation."""
    squeezed = s.emit("GlobalAveragePool", [x], ((*x.shape[:2], 1, 1), x.dtype, COMPUTED))[0]
    channels = x.sizes[1]
    given = [s.weight(s.random(channels, channels, 1, 1) / channels), s.weight(s.random(channels))]
    gate = s.like("Sigmoid", s.like("Conv", squeezed, *given))
    return [s.like("Mul", x, gate) if draw(st.booleans()) else _turned(s, x, gate)]


def _turned(s: Sketch, x: Value, gate: Value) -> Value:
    return s.emit("Mul", [gate, x], (x.shape, x.dtype, COMPUTED))[0]


def average(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    attrs = {
        "kernel_shape": [3, 3],
        "pads": [1, 1, 1, 1],
        "count_include_pad": draw(st.integers(0, 1)),
    }
    return [s.like("AveragePool", x, **attrs)]


def enlarge(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    mode = draw(st.sampled_from(["nearest", "linear"]))
    scales = s.weight([1.0, 1.0, 2.0, 2.0])
    shape = (*x.shape[:2], x.sizes[2] * 2, x.sizes[3] * 2)
    return s.emit("Resize", [x, "", scales], (shape, x.dtype, COMPUTED), mode=mode)


def framed(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Pad with a constant, or with what lies at the edge."""
    shape = (*x.shape[:2], x.sizes[2] + 2, x.sizes[3] + 2)
    given = [s.integers([0, 0, 1, 1, 0, 0, 1, 1])]
    mode = draw(st.sampled_from(["constant", "edge"]))
    if mode == "constant":
        given.append(s.weight(draw(st.sampled_from([0.0, 0.7]))))
    return s.emit("Pad", [x, *given], (shape, x.dtype, COMPUTED), mode=mode)


_MAPS: list[Layer] = [
    *(rg.conv, rg.dense, rg.depthwise, activate, activate, activate, combine, combine, offset),
    *(excite, average, enlarge, framed, rg.max_pool, rg.pool, rg.conv_transpose, rg.batch_norm),
    *(rg.split, rg.both_halves, rg.concat, rg.gather, rg.cut, rg.flatten, rg.transpose, rg.reduce),
]
_VECTORS: list[Layer] = [rg.matmul, rg.matmul, activate, combine, offset, rg.concat, rg.split]


@st.composite
def conv_graphs(draw: Draw) -> ModelProto:
    """Up to a dozen layers behind a convolution, every end of them read by another layer."""
    s = Sketch(draw(st.sampled_from([17, 13, 18])))
    batch: Dim = draw(st.sampled_from(["N", BATCH]))
    s.pool.append(Value("x", (batch, 3, *draw(st.sampled_from([(3, 5), (4, 2), (6, 4)])))))
    s.pool.extend(draw(st.sampled_from([rg.conv, rg.dense]))(draw, s, s.pool[0]))
    for _ in range(draw(st.sampled_from([2, 4, 6, 8, 10]))):
        x = s.pool[-1 - draw(st.sampled_from([0, 0, 0, 0, 1, 2])) % (len(s.pool) - 1)]
        fitting = list(_MAPS) if x.rank == 4 else list(_VECTORS) if x.rank == 2 else []
        if x.rank == 4 and x.sizes[1] % 2 == 0:
            fitting += [rg.shuffle, rg.shuffle, rg.shuffle_unit]
        if fitting and max(x.sizes[1:]) < 32:
            s.pool.extend(draw(st.sampled_from(fitting))(draw, s, x))
    read = {name for node in s.nodes for name in node.input}
    ends = [v for v in s.pool[1:] if v.name not in read]
    last = {4: rg.dense, 2: rg.matmul}
    made = [y for v in ends for y in (last[v.rank](draw, s, v) if v.rank in last else [v])]
    if draw(st.sampled_from([False, False, True])):
        made.append(draw(st.sampled_from(s.pool[1:])))
    return s.model(list({v.name: v for v in made}.values()), batch)
