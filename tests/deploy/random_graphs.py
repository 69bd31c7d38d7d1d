"""Hypothesis strategy for small graphs of the operators that fusions know, valid by construction.

Every value carries its shape, its type and how exactly it can be compared: a graph is drawn one
layer at a time, each behind any value there is, so a failure shrinks to the layers that matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

BATCH = 2
Dim = int | str
Draw = Callable[[st.SearchStrategy[Any]], Any]

# how exactly a value survives a rewrite: its bits, up to round-off, or not at all where round-off
# may have carried it over a rounding boundary of a narrower type
COPIED, COMPUTED, HALF, STEPPED = range(4)
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}


@dataclass(frozen=True)
class Value:
    name: str
    shape: tuple[Dim, ...]
    dtype: str = "float32"
    noise: int = COPIED

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def sizes(self) -> list[int]:
        return [BATCH if isinstance(d, str) else d for d in self.shape]


@dataclass
class Sketch:
    """A graph being drawn; `pool` holds what a layer may read, the newest last."""

    opset: int
    pool: list[Value] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | str],
        *outputs: tuple[Sequence[Dim], str, int],
        **attrs: Any,
    ) -> list[Value]:
        made = [
            Value(f"v{len(self.nodes)}_{index}", tuple(shape), dtype, noise)
            for index, (shape, dtype, noise) in enumerate(outputs)
        ]
        names = [i.name if isinstance(i, Value) else i for i in inputs]
        node = helper.make_node(
            op, names, [v.name for v in made], name=f"n{len(self.nodes)}", **attrs
        )
        self.nodes.append(node)
        return made

    def like(
        self, op: str, x: Value, *more: Value | str, noise: int | None = None, **attrs: Any
    ) -> Value:
        """A layer whose output is like its first input, computed unless `noise` says copied."""
        level = max(x.noise, COMPUTED) if noise is None else noise
        return self.emit(op, [x, *more], (x.shape, x.dtype, level), **attrs)[0]

    def weight(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def random(self, *shape: int) -> np.ndarray:
        return np.random.default_rng((len(self.weights), *shape)).standard_normal(shape)

    def integers(self, values: Sequence[int]) -> str:
        return self.weight(list(values), np.int64)

    def model(self, outputs: Sequence[Value], batch: Dim) -> onnx.ModelProto:
        def described(v: Value) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(v.name, _TYPES[v.dtype], v.shape)

        graph = helper.make_graph(
            self.nodes,
            "random",
            [described(v) for v in self.pool if v.name.startswith("x")],
            [described(v) for v in outputs],
            self.weights,
        )
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8 + (self.opset > 18))


Layer = Callable[[Draw, Sketch, Value], list[Value]]
_LAYERS: list[tuple[str, Callable[[Value], bool], Any]] = []


def layer(
    kind: str, fits: Callable[[Value], bool] = lambda v: True, often: int = 1
) -> Callable[[Layer], Layer]:
    """Register a layer, drawn `often` times as often as others: `copies` moves or selects
    elements, `computes` does arithmetic, `channels` is a few layers as networks have them."""

    def register(function: Layer) -> Layer:
        _LAYERS.extend([(kind, fits, function)] * often)
        return function

    return register


def is_map(v: Value) -> bool:
    return v.rank == 4


def is_float_map(v: Value) -> bool:
    return v.rank == 4 and v.dtype == "float32"


def is_float(v: Value) -> bool:
    return v.dtype == "float32"


def is_vector(v: Value) -> bool:
    return v.rank >= 2 and v.dtype == "float32"


@dataclass(frozen=True)
class RandomGraph:
    model: onnx.ModelProto
    noise: dict[str, int]


@st.composite
def random_graphs(draw: Draw, kinds: Sequence[str]) -> RandomGraph:
    """A graph of layers of those kinds or names; about a dozen nodes at most."""
    sketch = Sketch(draw(st.sampled_from([17, 13, 18, 21])))
    batch: Dim = draw(st.sampled_from(["N", BATCH]))
    channels = draw(st.sampled_from([4, 6, 3, 2, 8]))
    height, width = draw(st.sampled_from([(3, 5), (4, 2), (1, 1), (6, 4)]))
    maps, others = (batch, channels, height, width), [(batch, channels), (batch, 5, channels)]
    shape = draw(st.sampled_from([maps, maps, maps, maps, *others]))
    sketch.pool.append(Value("x", shape))
    # the first of these is what a failure shrinks to, the others what is worth its time
    for _ in range(draw(st.sampled_from([1, 4, 5, 6, 6, 7, 7, 8, 2, 3]))):
        if len(sketch.nodes) > 7:
            break
        value = sketch.pool[-1 - draw(st.sampled_from([0, 0, 0, 1, 2, 3])) % len(sketch.pool)]
        fitting = [
            make
            for kind, fits, make in _LAYERS
            if (kind in kinds or make.__name__ in kinds) and fits(value)
        ]
        sketch.pool.extend(draw(st.sampled_from(fitting))(draw, sketch, value))
    read = {name for node in sketch.nodes for name in node.input}
    ends = [v for v in sketch.pool if v.name not in read and not v.name.startswith("x")]
    inner = [v for v in sketch.pool if v.name in read and not v.name.startswith("x")]
    if inner and draw(st.sampled_from([False, False, False, True])):
        ends.append(draw(st.sampled_from(inner)))
    return RandomGraph(sketch.model(ends, batch), {v.name: v.noise for v in ends})


# --- layers that move or select elements ---------------------------------------------------------


@layer("copies", lambda v: v.rank >= 2, often=2)
def transpose(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    rest = list(range(1, x.rank))
    to_last, to_first = [*rest[1:], rest[0]], [rest[-1], *rest[:-1]]
    perm = [0, *draw(st.sampled_from([to_last, to_first]) | st.permutations(rest))]
    if x.shape[0] == BATCH and draw(st.sampled_from([False, False, True])):
        perm = draw(st.permutations(range(x.rank)))
    return s.emit("Transpose", [x], ([x.shape[p] for p in perm], x.dtype, x.noise), perm=list(perm))


def spelled(draw: Draw, x: Value, shape: Sequence[Dim]) -> list[int]:
    """The argument of a Reshape: -1 and 0 stand where an exporter might put them."""
    dims: list[int | None] = [None if isinstance(d, str) else d for d in shape]
    keeps = [i for i, d in enumerate(shape) if i < x.rank and x.shape[i] == d]
    for index in keeps:
        if dims[index] is not None and draw(st.booleans()):
            dims[index] = 0
    free = [i for i, d in enumerate(dims) if d is None]
    assert len(free) <= 1
    if free and (free[0] not in keeps or draw(st.booleans())):
        dims[free[0]] = -1
    elif free:
        dims[free[0]] = 0
    elif draw(st.booleans()):
        dims[draw(st.integers(0, len(dims) - 1))] = -1
    return [d for d in dims if d is not None]


def computed(draw: Draw, s: Sketch, x: Value, shape: Sequence[Dim]) -> Value:
    """The argument of a Reshape as exporters write x.size(): Shape, Gather, Mul, Div, Concat."""
    sizes = s.emit("Shape", [x], ([x.rank], "int64", COPIED))[0]
    parts: list[Value | str] = []
    # a free size that x hasn't, such as rows of all its pixels, is what is left
    new = [axis for axis, size in enumerate(shape) if isinstance(size, str) and size not in x.shape]
    left = draw(st.sampled_from(new or [None, *range(len(shape))]))
    for axis, size in enumerate(shape):
        if axis == left:
            parts.append(s.integers([-1]))
            continue
        wanted = BATCH if isinstance(size, str) else size
        same = [i for i, d in enumerate(x.shape) if d == size]
        parted = [i for i, d in enumerate(x.shape) if isinstance(d, int) and d % wanted == 0]
        if not isinstance(size, str) and (not (same or parted) or draw(st.booleans())):
            parts.append(s.integers([size]))
            continue
        source = draw(st.sampled_from(same or parted))
        taken = s.emit("Gather", [sizes, s.integers([source])], ([1], "int64", COPIED))[0]
        if source not in same:
            by = s.integers([x.sizes[source] // wanted])
            taken = s.emit("Div", [taken, by], ([1], "int64", COPIED))[0]
        parts.append(taken)
    return s.emit("Concat", parts, ([len(shape)], "int64", COPIED), axis=0)[0]


def reshaped(draw: Draw, s: Sketch, x: Value, shape: Sequence[Dim]) -> Value:
    argument: Value | str = s.integers(spelled(draw, x, shape))
    if draw(st.sampled_from([False, False, False, False, False, True])):
        argument = computed(draw, s, x, shape)
    return s.emit("Reshape", [x, argument], (shape, x.dtype, x.noise))[0]


@layer("copies", lambda v: v.rank >= 2)
def reshape(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    axis = draw(st.integers(1, x.rank - 1))
    size = x.sizes[axis]
    if axis < x.rank - 1 and draw(st.booleans()):
        merged = size * x.sizes[axis + 1]
        return [reshaped(draw, s, x, [*x.shape[:axis], merged, *x.shape[axis + 2 :]])]
    if x.rank > 5:
        return [reshaped(draw, s, x, [x.shape[0], math.prod(x.sizes[1:])])]
    factor = draw(st.sampled_from([f for f in (2, 3, 1, 4) if size % f == 0]))
    return [reshaped(draw, s, x, [*x.shape[:axis], factor, size // factor, *x.shape[axis + 1 :]])]


@layer("copies", lambda v: v.rank >= 2)
def squeeze(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    ones = [i for i, d in enumerate(x.shape) if d == 1]
    if ones and draw(st.booleans()):
        axis = draw(st.sampled_from(ones))
        shape = [*x.shape[:axis], *x.shape[axis + 1 :]]
        return s.emit("Squeeze", [x, s.integers([axis])], (shape, x.dtype, x.noise))
    if x.rank > 5:
        return s.emit("Identity", [x], (x.shape, x.dtype, x.noise))
    axis = draw(st.integers(1, x.rank))
    shape = [*x.shape[:axis], 1, *x.shape[axis:]]
    given = axis if draw(st.booleans()) else axis - x.rank - 1
    return s.emit("Unsqueeze", [x, s.integers([given])], (shape, x.dtype, x.noise))


@layer("copies", lambda v: v.rank >= 2)
def flatten(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    shape = (x.shape[0], math.prod(x.sizes[1:]))
    return s.emit("Flatten", [x], (shape, x.dtype, x.noise), axis=1)


@layer("copies", lambda v: v.rank >= 2)
def cut(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Slice, forwards or backwards, with positive and negative ends."""
    axis = draw(st.sampled_from([1, *range(1, x.rank)]))
    size = x.sizes[axis]
    step = draw(st.sampled_from([1, 1, 2, -1]))
    low = draw(st.integers(0, size - 1))
    high = draw(st.integers(low + 1, size))
    start, end = (low, high) if step > 0 else (high - 1, low - 1 if low else -size - 1)
    length = -(-(high - low) // abs(step))
    if end == size and draw(st.booleans()):
        end = 2**31
    elif 0 <= end < size and draw(st.booleans()):
        start, end = start - size, end - size
    given = [s.integers([v]) for v in (start, end, axis, step)]
    shape = [*x.shape[:axis], length, *x.shape[axis + 1 :]]
    return s.emit("Slice", [x, *given], (shape, x.dtype, x.noise))


@layer("copies", lambda v: v.rank >= 2)
def both_halves(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Two Slices that cover an axis, as older exporters write chunk()."""
    size = x.sizes[1]
    if size < 2:
        return s.emit("Identity", [x], (x.shape, x.dtype, x.noise))
    middle = draw(st.sampled_from([size // 2, 1]))
    found = []
    for start, end in ((0, middle), (middle, size)):
        given = [s.integers([v]) for v in (start, end, 1)]
        shape = (x.shape[0], end - start, *x.shape[2:])
        found += s.emit("Slice", [x, *given], (shape, x.dtype, x.noise))
    return found


@layer("copies", lambda v: v.rank >= 2)
def split(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    axis = draw(st.sampled_from([1, *range(1, x.rank)]))
    size = x.sizes[axis]
    first = draw(st.integers(1, size))
    parts = [first, size - first] if first < size else [first]
    if size % 2 == 0 and draw(st.booleans()):
        parts = [size // 2, size // 2]
    outputs = [((*x.shape[:axis], part, *x.shape[axis + 1 :]), x.dtype, x.noise) for part in parts]
    if s.opset >= 18 and len(set(parts)) == 1 and draw(st.booleans()):
        return s.emit("Split", [x], *outputs, axis=axis, num_outputs=len(parts))
    return s.emit("Split", [x, s.integers(parts)], *outputs, axis=axis)


@layer("copies", lambda v: v.rank >= 2)
def concat(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    axis = draw(st.sampled_from([1, *range(1, x.rank)]))

    def joins(v: Value) -> bool:
        others = [
            (a, b) for i, (a, b) in enumerate(zip(v.shape, x.shape, strict=True)) if i != axis
        ]
        return all(a == b for a, b in others)

    fitting = [v for v in s.pool if v.rank == x.rank and v.dtype == x.dtype and joins(v)]
    parts = [x, *draw(st.lists(st.sampled_from(fitting[::-1]), min_size=1, max_size=2))]
    parts = list(reversed(parts)) if draw(st.booleans()) else parts
    total = sum(v.sizes[axis] for v in parts)
    if total > 24:
        return s.emit("Identity", [x], (x.shape, x.dtype, x.noise))
    shape = [*x.shape[:axis], total, *x.shape[axis + 1 :]]
    noise = max(v.noise for v in parts)
    return s.emit("Concat", parts, (shape, x.dtype, noise), axis=axis)


@layer("copies", lambda v: v.rank >= 2)
def gather(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    axis = draw(st.sampled_from([1, *range(1, x.rank)]))
    size = x.sizes[axis]
    if x.rank > 2 and draw(st.sampled_from([False, False, True])):
        index = draw(st.integers(-size, size - 1))
        shape = [*x.shape[:axis], *x.shape[axis + 1 :]]
        given = s.weight(index, np.int64)
        return s.emit("Gather", [x, given], (shape, x.dtype, x.noise), axis=axis)
    indices = draw(
        st.permutations(range(size))
        | st.lists(st.integers(-size, size - 1), min_size=1, max_size=6)
    )
    shape = [*x.shape[:axis], len(indices), *x.shape[axis + 1 :]]
    return s.emit("Gather", [x, s.integers(indices)], (shape, x.dtype, x.noise), axis=axis)


@layer("copies", lambda v: v.rank >= 2 and v.sizes[1] % 2 == 0, often=2)
def shuffle(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """A channel shuffle as Reshape-Transpose-Reshape, the map in as many axes as it likes."""
    channels, rest = x.sizes[1], list(x.shape[2:])
    groups = draw(st.sampled_from([g for g in (2, 3, 4) if channels % g == 0]))
    if len(rest) == 2 and draw(st.booleans()):
        rest = [math.prod(x.sizes[2:])]
    y = reshaped(draw, s, x, [x.shape[0], groups, channels // groups, *rest])
    perm = [0, 2, 1, *range(3, 3 + len(rest))]
    y = s.emit("Transpose", [y], ([y.shape[p] for p in perm], y.dtype, y.noise), perm=perm)[0]
    return [reshaped(draw, s, y, x.shape)]


@layer("copies", is_map)
def pad(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    amounts = [0, 0, *draw(st.tuples(*[st.integers(0, 2)] * 2))]
    amounts += [0, draw(st.sampled_from([0, 0, 1])), *draw(st.tuples(*[st.integers(0, 2)] * 2))]
    shape = [x.shape[0], *(x.sizes[i] + amounts[i] + amounts[i + 4] for i in (1, 2, 3))]
    given = [s.integers(amounts)]
    if draw(st.booleans()):
        value = draw(st.sampled_from([0.0, 1.0, 0.1]))
        kind = np.dtype(x.dtype)
        given.append(s.weight(value if kind.kind == "f" else int(value), kind))
    return s.emit("Pad", [x, *given], (shape, x.dtype, x.noise))


# ONNX Runtime has it for float32 alone: it casts float16 up around it, and then drops the pair of
# casts with the rounding they did, so behind it not even a copy keeps its bits
@layer("copies", lambda v: is_float_map(v) and v.sizes[1] % 4 == 0, often=2)
def depth_to_space(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    shape = (x.shape[0], x.sizes[1] // 4, x.sizes[2] * 2, x.sizes[3] * 2)
    mode = draw(st.sampled_from(["DCR", "CRD"]))
    return s.emit(
        "DepthToSpace", [x], (shape, x.dtype, max(x.noise, COMPUTED)), blocksize=2, mode=mode
    )


@layer("copies", lambda v: v.rank == 4 and v.dtype in ("float32", "float16", "uint8"))
def max_pool(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    if x.dtype == "float16" or min(x.sizes[2:]) < 2:
        return s.emit("Identity", [x], (x.shape, x.dtype, x.noise))
    stride = draw(st.sampled_from([1, 2]))
    shape = (*x.shape[:2], *((n - 2) // stride + 1 for n in x.sizes[2:]))
    geometry = {"kernel_shape": [2, 2], "strides": [stride] * 2}
    return s.emit("MaxPool", [x], (shape, x.dtype, x.noise), **geometry)


@layer("copies", lambda v: v.dtype in ("float32", "float16"))
def select(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Operators on single elements that round nothing."""
    op = draw(st.sampled_from(["Relu", "Neg", "Abs", "Identity"]))
    return [s.like(op, x, noise=x.noise)]


@layer("copies", lambda v: v.rank >= 2 and 1 in v.shape)
def expand(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    axis = x.shape.index(1)
    shape = [*x.shape[:axis], 3, *x.shape[axis + 1 :]]
    if draw(st.booleans()):
        repeats = [3 if i == axis else 1 for i in range(x.rank)]
        return s.emit("Tile", [x, s.integers(repeats)], (shape, x.dtype, x.noise))
    wanted = [1 if i != axis else 3 for i in range(x.rank)]
    return s.emit("Expand", [x, s.integers(wanted)], (shape, x.dtype, x.noise))


@layer("copies")
def cast(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """To a narrower type or back; what was computed may fall on the other side of a boundary."""
    if x.dtype in ("uint8", "int8"):
        zero = s.weight(3 if x.dtype == "uint8" else 0, x.dtype)
        scale = s.weight(0.05)
        return s.emit("DequantizeLinear", [x, scale, zero], (x.shape, "float32", x.noise))
    to = draw(st.sampled_from(["float16", "int32"])) if x.dtype == "float32" else "float32"
    noise = x.noise
    if noise != COPIED and x.dtype == "float32":
        noise = max(noise, HALF if to == "float16" else STEPPED)
    return s.emit("Cast", [x], (x.shape, to, noise), to=_TYPES[to])


@layer("copies", lambda v: v.dtype == "float16", often=4)
def widen(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """What was narrow goes on in float32: often, as few values are narrow."""
    return s.emit("Cast", [x], (x.shape, "float32", x.noise), to=_TYPES["float32"])


@layer("copies", is_float)
def quantize(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    kind = draw(st.sampled_from(["uint8", "int8"]))
    zero = s.weight(3 if kind == "uint8" else 0, kind)
    noise = STEPPED if x.noise != COPIED else COPIED
    given = [s.weight(draw(st.sampled_from([0.05, 0.07]))), zero]
    return s.emit("QuantizeLinear", [x, *given], (x.shape, kind, noise))


# --- layers that compute --------------------------------------------------------------------------


@layer("computes", is_float_map, often=5)
def conv(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Dense, grouped or depthwise, with all that may be set."""
    channels = x.sizes[1]
    group = draw(st.sampled_from([1, channels, *(g for g in (2,) if channels % g == 0)]))
    out = channels if group == channels else group * draw(st.integers(1, 3))
    kernel = [draw(st.sampled_from([1, 1, 3])) for _ in range(2)]
    pads = draw(st.sampled_from([[0] * 4, [1] * 4, [0, 1, 2, 0]]))
    span = [n + pads[i] + pads[i + 2] - kernel[i] for i, n in enumerate(x.sizes[2:])]
    if min(span) < 0:
        kernel, pads, span = [1, 1], [0] * 4, x.sizes[2:]
        span = [n - 1 for n in span]
    stride = draw(st.sampled_from([1, 1, 2]))
    weight = s.random(out, channels // group, *kernel)
    given = [s.weight(weight / math.sqrt(weight[0].size))]
    if draw(st.booleans()):
        given.append(s.weight(s.random(out)))
    shape = (x.shape[0], out, *(n // stride + 1 for n in span))
    attrs = {"kernel_shape": kernel, "pads": pads, "strides": [stride] * 2, "group": group}
    return s.emit("Conv", [x, *given], (shape, x.dtype, max(x.noise, COMPUTED)), **attrs)


@layer("computes", lambda v: v.name == "x" and is_float_map(v) and v.sizes[3] > 1, often=8)
def first_conv(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """On the image itself, in steps."""
    kernel = [draw(st.sampled_from([3, 1, 2])) for _ in range(2)]
    pads = draw(st.sampled_from([[1] * 4, [0, 0, 1, 1], [2, 1, 1, 2]]))
    steps = draw(st.sampled_from([[2, 2], [1, 2], [2, 1], [4, 4]]))
    span = [n + pads[i] + pads[i + 2] - kernel[i] for i, n in enumerate(x.sizes[2:])]
    if min(span) < 0:
        return s.emit("Identity", [x], (x.shape, x.dtype, x.noise))
    out = draw(st.sampled_from([4, 3]))
    weight = s.random(out, x.sizes[1], *kernel)
    given = [s.weight(weight / math.sqrt(weight[0].size)), s.weight(s.random(out))]
    shape = (x.shape[0], out, *(n // step + 1 for n, step in zip(span, steps, strict=True)))
    attrs = {"kernel_shape": kernel, "pads": pads, "strides": steps}
    return s.emit("Conv", [x, *given], (shape, x.dtype, COMPUTED), **attrs)


@layer("computes", lambda v: is_float_map(v) and v.sizes[1] % 2 == 0, often=2)
def shuffle_unit(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Half of the channels through a convolution, then joined with the rest and shuffled."""
    half = x.sizes[1] // 2
    shape = ((x.shape[0], half, *x.shape[2:]), x.dtype, x.noise)
    kept, y = s.emit("Split", [x, s.integers([half, half])], shape, shape, axis=1)
    y = conv(draw, s, y)[0]
    if y.shape[2:] != kept.shape[2:]:
        return [kept, y]
    parts = draw(st.sampled_from([[kept, y], [y, kept]]))
    joined = (x.shape[0], half + y.sizes[1], *x.shape[2:])
    z = s.emit("Concat", parts, (joined, x.dtype, y.noise), axis=1)[0]
    return shuffle(draw, s, z) if z.sizes[1] % 2 == 0 else [z]


@layer("computes", is_float_map)
def two_convs(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Siblings on one input, of the same geometry."""
    found = []
    for out in draw(st.sampled_from([(2, 3), (2, 2)])):
        weight = s.weight(s.random(out, x.sizes[1], 1, 1) / math.sqrt(x.sizes[1]))
        given = [x, weight, *([s.weight(s.random(out))] if draw(st.booleans()) else [])]
        shape = (x.shape[0], out, *x.shape[2:])
        found += s.emit("Conv", given, (shape, x.dtype, max(x.noise, COMPUTED)))
    return found


@layer("computes", is_float_map)
def conv_transpose(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    out = draw(st.integers(1, 3))
    weight = s.random(x.sizes[1], out, 2, 2) / math.sqrt(x.sizes[1])
    shape = (x.shape[0], out, *(2 * n for n in x.sizes[2:]))
    noise = max(x.noise, COMPUTED)
    given = [x, s.weight(weight)]
    return s.emit("ConvTranspose", given, (shape, x.dtype, noise), strides=[2, 2])


@layer("computes", is_vector)
def matmul(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """MatMul on the last axis, or a Gemm where there are two, with what may follow."""
    size, out = x.sizes[-1], draw(st.integers(1, 5))
    noise = max(x.noise, COMPUTED)
    weight = s.random(size, out) / math.sqrt(size)
    shape = (*x.shape[:-1], out)
    if x.rank == 2 and draw(st.booleans()):
        turned = draw(st.booleans())
        given = [x, s.weight(weight.T if turned else weight)]
        if draw(st.booleans()):
            given.append(s.weight(s.random(out)))
        attrs = {"transB": int(turned), "alpha": draw(st.sampled_from([1.0, 0.5]))}
        return s.emit("Gemm", given, (shape, x.dtype, noise), **attrs)
    y = s.emit("MatMul", [x, s.weight(weight)], (shape, x.dtype, noise))[0]
    if draw(st.booleans()):
        y = s.like("Add", y, s.weight(s.random(out)))
    return [y]


@layer("computes", is_vector, often=2)
def batch_norm(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    channels = x.sizes[1]
    given = [s.weight(s.random(channels)) for _ in range(3)]
    given.append(s.weight(np.abs(s.random(channels)) + 0.5))
    return [s.like("BatchNormalization", x, *given)]


@layer("computes", is_float, often=2)
def affine(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Mul, Add, Sub or Div with a constant: a scalar, one per channel, or one per last index."""
    op = draw(st.sampled_from(["Mul", "Add", "Sub", "Div"]))
    shapes: list[tuple[int, ...]] = [(), (1,)]
    if x.rank >= 2:
        per_channel = (x.sizes[1], *(1,) * (x.rank - 2))
        shapes = [per_channel, *shapes, (1, *per_channel), (x.sizes[-1],)]
    values = s.random(*draw(st.sampled_from(shapes)))
    constant = s.weight(np.sign(values) * (np.abs(values) + 0.5))
    if op != "Div" and draw(st.sampled_from([False, False, True])):
        return s.emit(op, [constant, x], (x.shape, x.dtype, max(x.noise, COMPUTED)))
    return [s.like(op, x, constant)]


@layer("computes", is_float, often=2)
def activation(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """One operator, or one of the spellings that exporters have for more."""
    name = draw(st.sampled_from(sorted(_ACTIVATIONS)))
    return [_ACTIVATIONS[name](s, x)]


def _clip(s: Sketch, x: Value, low: float, high: float) -> Value:
    return s.like("Clip", x, s.weight(low), s.weight(high))


def _hard_swish(s: Sketch, x: Value) -> Value:
    gate = _clip(s, s.like("Add", x, s.weight(3.0)), 0.0, 6.0)
    return s.like("Div", s.like("Mul", x, gate), s.weight(6.0))


def _hard_sigmoid(s: Sketch, x: Value) -> Value:
    return s.like("Div", _clip(s, s.like("Add", x, s.weight(3.0)), 0.0, 6.0), s.weight(6.0))


def _gelu(s: Sketch, x: Value) -> Value:
    inner = s.like("Erf", s.like("Div", x, s.weight(math.sqrt(2))))
    return s.like("Mul", s.like("Mul", x, s.like("Add", inner, s.weight(1.0))), s.weight(0.5))


def _layer_norm(s: Sketch, x: Value) -> Value:
    if x.sizes[-1] < 2:
        return s.like("Tanh", x)
    mean = _reduced(s, "ReduceMean", x, [-1], 1)
    centred = s.like("Sub", x, mean)
    variance = _reduced(s, "ReduceMean", s.like("Pow", centred, s.weight(2.0)), [-1], 1)
    deviation = s.like("Sqrt", s.like("Add", variance, s.weight(0.01)))
    return s.like("Div", centred, deviation)


def _jax_norm(s: Sketch, x: Value) -> Value:
    """mean(x^2) - mean(x)^2 cancels: of small values, and with an epsilon that keeps it away from
    zero, it loses no more than the tolerance."""
    x = s.like("Tanh", x)
    if x.sizes[-1] < 2:
        return x
    mean = _reduced(s, "ReduceMean", x, [-1], 1)
    squares = _reduced(s, "ReduceMean", s.like("Mul", x, x), [-1], 1)
    variance = s.like("Sub", squares, s.like("Mul", mean, mean))
    shifted = s.like("Add", s.like("Max", variance, s.weight(0.0)), s.weight(0.1))
    return s.like("Mul", s.like("Sub", x, mean), s.like("Reciprocal", s.like("Sqrt", shifted)))


def _rms_norm(s: Sketch, x: Value) -> Value:
    square = _reduced(s, "ReduceMean", s.like("Pow", x, s.weight(2.0)), [-1], 1)
    return s.like("Div", x, s.like("Sqrt", s.like("Add", square, s.weight(0.01))))


def _scaled_swish(s: Sketch, x: Value) -> Value:
    return s.like("Mul", x, s.like("Sigmoid", s.like("Mul", x, s.weight(1.702))))


_ACTIVATIONS: dict[str, Callable[[Sketch, Value], Value]] = {
    "relu6": lambda s, x: _clip(s, x, 0.0, 6.0),
    "sigmoid": lambda s, x: s.like("Sigmoid", x),
    "tanh": lambda s, x: s.like("Tanh", x),
    "leaky": lambda s, x: s.like("LeakyRelu", x, alpha=0.1),
    "softmax": lambda s, x: s.like("Softmax", x, axis=min(1, x.rank - 1)),
    "hard_sigmoid": lambda s, x: s.like("HardSigmoid", x, alpha=1 / 6),
    "hard_sigmoid in parts": _hard_sigmoid,
    "swish": lambda s, x: s.like("Mul", x, s.like("Sigmoid", x)),
    "gated": lambda s, x: s.like("Mul", x, s.like("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
    "hard_swish": _hard_swish,
    "gelu": _gelu,
    "mish": lambda s, x: s.like("Mul", x, s.like("Tanh", s.like("Softplus", x))),
    "layer_norm": _layer_norm,
    "jax norm": _jax_norm,
    "rms_norm": _rms_norm,
    "scaled swish": _scaled_swish,
}


def _reduced(s: Sketch, op: str, x: Value, axes: Sequence[int], keep: int) -> Value:
    hit = {a % x.rank for a in axes}
    shape = [1 if i in hit else d for i, d in enumerate(x.shape) if keep or i not in hit]
    output = (shape, x.dtype, max(x.noise, COMPUTED))
    if s.opset >= 18 or op == "ReduceSum":
        return s.emit(op, [x, s.integers(axes)], output, keepdims=keep)[0]
    return s.emit(op, [x], output, axes=list(axes), keepdims=keep)[0]


@layer("computes", is_vector)
def reduce(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    op = draw(st.sampled_from(["ReduceMean", "ReduceSum", "ReduceMax"]))
    choices = [[x.rank - 1], [1], [-1], list(range(2, x.rank)) or [1]]
    return [_reduced(s, op, x, draw(st.sampled_from(choices)), draw(st.sampled_from([0, 1])))]


@layer("computes", is_float_map)
def pool(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    noise = max(x.noise, COMPUTED)
    if min(x.sizes[2:]) < 2 or draw(st.booleans()):
        return s.emit("GlobalAveragePool", [x], ((*x.shape[:2], 1, 1), x.dtype, noise))
    shape = (*x.shape[:2], *(n - 1 for n in x.sizes[2:]))
    return s.emit("AveragePool", [x], (shape, x.dtype, noise), kernel_shape=[2, 2])


@layer("computes", is_float, often=2)
def combine(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Two values of the same shape, or a map and one factor per channel."""

    def fits(v: Value) -> bool:
        per_channel = v.rank == x.rank == 4 and v.shape == (*x.shape[:2], 1, 1)
        return v.dtype == x.dtype and (v.shape == x.shape or per_channel)

    other = draw(st.sampled_from([v for v in reversed(s.pool) if fits(v)]))
    op = draw(st.sampled_from(["Add", "Mul", "Sub"]))
    return [s.like(op, x, other, noise=max(x.noise, other.noise, COMPUTED))]


@layer("computes", lambda v: is_float_map(v) and v.sizes[1] % 2 == 0)
def group_norm(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """As exporters write it before opset 18: an InstanceNormalization of fewer, longer channels."""
    noise = max(x.noise, COMPUTED)
    shape = (x.shape[0], 2, math.prod(x.sizes[1:]) // 2)
    y = reshaped(draw, s, x, shape)
    given = [s.weight(np.ones(2)), s.weight(np.zeros(2))]
    y = s.emit("InstanceNormalization", [y, *given], (shape, x.dtype, noise), epsilon=0.01)[0]
    y = reshaped(draw, s, y, x.shape)
    per_channel = (x.sizes[1], 1, 1)
    y = s.like("Mul", y, s.weight(s.random(*per_channel)))
    return [s.like("Add", y, s.weight(s.random(*per_channel)))]


def dense(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """A 1x1 convolution to a number of channels that can be shuffled."""
    out = draw(st.sampled_from([6, 4, 8]))
    weight = s.random(out, x.sizes[1], 1, 1) / math.sqrt(x.sizes[1])
    output = ((x.shape[0], out, *x.shape[2:]), x.dtype, max(x.noise, COMPUTED))
    return s.emit("Conv", [x, s.weight(weight), s.weight(s.random(out))], output)


def depthwise(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    channels = x.sizes[1]
    given = [s.weight(s.random(channels, 1, 3, 3) / 3), s.weight(s.random(channels))]
    return [s.like("Conv", x, *given, group=channels, pads=[1] * 4)]


def excite(draw: Draw, s: Sketch, x: Value) -> list[Value]:
    """Squeeze and excitation: x times a gate of its means."""
    mean = s.emit(
        "GlobalAveragePool", [x], ((*x.shape[:2], 1, 1), x.dtype, max(x.noise, COMPUTED))
    )[0]
    squeezed = s.like("Relu", dense(draw, s, mean)[0])
    weight = s.random(x.sizes[1], squeezed.sizes[1], 1, 1) / math.sqrt(squeezed.sizes[1])
    output = (mean.shape, x.dtype, squeezed.noise)
    y = s.emit("Conv", [squeezed, s.weight(weight)], output)[0]
    gate = draw(st.sampled_from([_hard_sigmoid, lambda s, y: s.like("Sigmoid", y)]))(s, y)
    pair = draw(st.sampled_from([(x, gate), (gate, x)]))
    return s.emit("Mul", list(pair), (x.shape, x.dtype, gate.noise))


def in_a_row(*makers: Layer) -> Layer:
    """A layer of several, each reading the one before: what some fusion looks for, and what chance
    seldom puts side by side."""

    def row(draw: Draw, s: Sketch, x: Value) -> list[Value]:
        made = [x]
        for make in makers:
            if make is shuffle_unit and made[-1].sizes[1] % 2:
                break
            made = make(draw, s, made[-1])
            s.pool.extend(made)
        return []

    row.__name__ = "in_a_row"
    return row


for _row in (
    in_a_row(conv, affine),
    in_a_row(conv, batch_norm),
    in_a_row(affine, conv),
    in_a_row(batch_norm, conv),
    in_a_row(pad, conv),
    in_a_row(two_convs, concat),
    in_a_row(concat, conv),
    in_a_row(conv, conv),
    in_a_row(transpose, reduce),
    in_a_row(shuffle_unit, conv),
    in_a_row(dense, shuffle, dense),
    in_a_row(dense, shuffle, depthwise, dense),
    in_a_row(dense, shuffle, affine, dense),
    in_a_row(excite, dense),
    in_a_row(shuffle, depthwise, select),
    in_a_row(dense, batch_norm, shuffle, split),
    in_a_row(dense, shuffle, activation, split, dense),
    in_a_row(shuffle_unit, shuffle_unit, dense),
    in_a_row(flatten, matmul, affine),
):
    layer("channels", lambda v: is_float_map(v) and v.sizes[1] % 2 == 0)(_row)
for _row in (
    in_a_row(quantize, cast, quantize),
    in_a_row(transpose, quantize),
    in_a_row(concat, cast),
):
    layer("copies", is_vector)(_row)
