"""Layers for random graphs as frameworks with channels last write them: a Transpose, some layers
on the last axis, and mostly a Transpose back."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st
from random_graphs import (
    COMPUTED,
    Draw,
    Layer,
    Sketch,
    Value,
    _layer_norm,
    activation,
    affine,
    is_float_map,
    is_vector,
    layer,
    matmul,
    reshaped,
    select,
)


def layer_norm(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Over the last axis, or from an earlier one on; written out before opset 17."""
    first = draw(st.sampled_from([x.rank - 1, x.rank - 1, x.rank - 1, *range(1, x.rank)]))
    sizes = x.sizes[first:]
    if math.prod(sizes) < 2:
        return [s.like("Tanh", x)]
    if s.opset < 17:
        return [_layer_norm(s, x)]
    given = [s.weight(s.random(*sizes))]
    if draw(st.booleans()):
        given.append(s.weight(s.random(*sizes)))
    axis = draw(st.sampled_from([first, first - x.rank]))
    return [s.like("LayerNormalization", x, *given, axis=axis, epsilon=0.1)]


def dense_rows(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """A dense layer of rows, and back to a map."""
    if isinstance(x.shape[0], str) and x.rank > 3 and draw(st.booleans()):
        lead = [x.shape[0], math.prod(x.sizes[1:-1])]
    else:
        lead = ["R" if isinstance(x.shape[0], str) else math.prod(x.sizes[:-1])]
    rows = reshaped(draw, s, x, [*lead, x.sizes[-1]])
    out = draw(st.integers(1, 5))
    noise = max(x.noise, COMPUTED)
    weight = s.weight(s.random(x.sizes[-1], out) / math.sqrt(x.sizes[-1]))
    y = s.emit("MatMul", [rows, weight], ([*lead, out], x.dtype, noise))[0]
    if draw(st.booleans()):
        y = s.like("Add", y, s.weight(s.random(out)))
    return [reshaped(draw, s, y, [*x.shape[:-1], out])]


def shuffle_last(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """A shuffle of the last axis, with the axes in front of it as they are or joined."""
    size = x.sizes[-1]
    groups = draw(st.sampled_from([g for g in (2, 3, 4, 1) if size % g == 0]))
    lead = list(x.shape[:-1])
    if x.rank == 4 and draw(st.sampled_from([False, False, True])):
        lead = [lead[0], math.prod(x.sizes[1:3])]
    y = reshaped(draw, s, x, [*lead, groups, size // groups])
    perm = [*range(len(lead)), len(lead) + 1, len(lead)]
    y = s.emit("Transpose", [y], ([y.shape[p] for p in perm], y.dtype, y.noise), perm=perm)[0]
    return [reshaped(draw, s, y, x.shape)]


def halves_last(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """The last axis split, and its parts joined again, one of them behind something else."""
    size = x.sizes[-1]
    if size < 2:
        return select(draw, s, x)
    sizes = [size // 2, size - size // 2]
    outputs = [((*x.shape[:-1], part), x.dtype, x.noise) for part in sizes]
    left, right = s.emit("Split", [x, s.integers(sizes)], *outputs, axis=x.rank - 1)
    right = select(draw, s, right)[0]
    parts = draw(st.sampled_from([[left, right], [right, left]]))
    return s.emit("Concat", parts, (x.shape, x.dtype, x.noise), axis=-1)


def residual_last(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """x and a layer of x, added."""
    y = draw(st.sampled_from([layer_norm, activation, affine]))(draw, s, x)[-1]
    return [s.like("Add", x, y, noise=max(x.noise, y.noise, COMPUTED))]


LAST_AXIS = ["last axis computes", "last axis moves"]
MOVING: list[Layer] = [shuffle_last, halves_last, select]
COMPUTING: list[Layer] = [layer_norm, matmul, dense_rows, residual_last, activation, affine]


def _between_transposes(draw: Draw, s: Sketch, x: Value, layers: list[Layer]) -> list[Value]:
    to_last = [0, *range(2, x.rank), 1]
    to_first = [0, x.rank - 1, *range(1, x.rank - 1)]
    made = [_transposed(s, x, to_last)]
    for _ in range(draw(st.sampled_from([2, 1, 3, 4]))):
        made.extend(draw(st.sampled_from(layers))(draw, s, made[-1]))
    if draw(st.sampled_from([True, True, True, False])):
        made.append(_transposed(s, made[-1], to_first))
    return made


def _transposed(s: Sketch, x: Value, perm: list[int]) -> Value:
    return s.emit("Transpose", [x], ([x.shape[p] for p in perm], x.dtype, x.noise), perm=perm)[0]


@layer("last axis moves", lambda v: v.rank >= 3, often=3)
def moved_last(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    return _between_transposes(draw, s, x, MOVING)


@layer("last axis computes", is_float_map, often=3)
@layer("last axis computes", lambda v: is_vector(v) and v.rank in (3, 5))
def computed_last(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    return _between_transposes(draw, s, x, COMPUTING + MOVING)


@layer("last axis computes", lambda v: is_float_map(v) and np.prod(v.sizes) > 0)
def pooled_last(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Channels last into a mean, and a dense layer of what is left."""
    y = _transposed(s, x, [0, 2, 3, 1])
    shape = (x.shape[0], 1, 1, x.shape[1])
    output = (shape, x.dtype, max(x.noise, COMPUTED))
    if s.opset >= 18:
        mean = s.emit("ReduceMean", [y, s.integers([1, 2])], output)[0]
    else:
        mean = s.emit("ReduceMean", [y], output, axes=[1, 2])[0]
    return [y, *matmul(draw, s, mean)]
