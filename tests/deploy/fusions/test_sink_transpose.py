"""sink_transpose: which ops turn, where the Transposes end, and when they stay."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_same_numbers, assert_skips, model_from, ops, skips, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse

SINK = "sink_transpose"
ALL = [
    "sink_transpose",
    "sink_transpose_rounding",
    "cancel_transpose",
    "absorb_transpose",
    "absorb_transpose_rounding",
]
TO_NHWC, TO_NCHW = "perm=[0,2,3,1]", "perm=[0,3,1,2]"


def sandwich(
    middle: str,
    constants: dict[str, np.ndarray] | None = None,
    *,
    out: str = "float[N,4,8,6]",
    opset: int = 17,
) -> Model:
    """x [N,4,8,6] -> NHWC a [N,8,6,4] -> `middle` -> b -> NCHW y."""
    text = (
        f"g (float[N,4,8,6] x) => ({out} y) "
        f"{{ a = Transpose<{TO_NHWC}>(x) {middle} y = Transpose<{TO_NCHW}>(b) }}"
    )
    return model_from(text, constants, opset=opset)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


# one op between two Transposes: text, constants, output
SANDWICHES: dict[str, tuple[str, dict[str, np.ndarray], str]] = {
    "Relu": ("b = Relu(a)", {}, "float[N,4,8,6]"),
    "bias": ("b = Add(a, k)", {"k": weight(4)}, "float[N,4,8,6]"),
    "bias turned": ("b = Sub(k, a)", {"k": weight(4)}, "float[N,4,8,6]"),
    "one row": ("b = Mul(a, k)", {"k": weight(6, 1)}, "float[N,4,8,6]"),
    "full": ("b = Mul(a, k)", {"k": weight(1, 8, 6, 4)}, "float[N,4,8,6]"),
    "scalar": ("b = Mul(a, k)", {"k": weight()}, "float[N,4,8,6]"),
    "one value": ("b = Max(a, k)", {"k": weight(1, 1)}, "float[N,4,8,6]"),
    "Clip": (
        'b = Clip(a, "", k)',
        {"k": np.asarray(0.5, np.float32)},
        "float[N,4,8,6]",
    ),
    "PRelu": ("b = PRelu(a, k)", {"k": weight(4)}, "float[N,4,8,6]"),
    "Where": ("c = Greater(a, k) b = Where(c, a, k)", {"k": weight(4)}, "float[N,4,8,6]"),
    "Cast": ("b = Cast<to=10>(a)", {}, "float16[N,4,8,6]"),
    "Concat": ("b = Concat<axis=-1>(a, a)", {}, "float[N,8,8,6]"),
    "Concat of a constant": ("r = Relu(a) b = Concat<axis=0>(r, k)", {"k": weight(3, 8, 6, 4)}, ""),
    "Pad": ("b = Pad(a, k)", {"k": ints(0, 1, 2, 0, 0, 3, 0, 1)}, "float[N,5,12,8]"),
    "Pad, reflected": (
        'b = Pad<mode="reflect">(a, k)',
        {"k": ints(0, 1, 2, 0, 0, 3, 0, 0)},
        "float[N,4,12,8]",
    ),
    "Slice": (
        "b = Slice(a, s, e, i, t)",
        {"s": ints(1, 5), "e": ints(4, -9), "i": ints(-1, 1), "t": ints(1, -2)},
        "float[N,3,3,6]",
    ),
    "Slice without axes": ("b = Slice(a, s, e)", {"s": ints(0, 2), "e": ints(9, 7)}, ""),
    "Split": ("c, d = Split<axis=2>(a, k) b = Relu(d)", {"k": ints(2, 4)}, "float[N,4,8,4]"),
    "Gather": ("b = Gather<axis=3>(a, k)", {"k": ints(3, 0, 0)}, "float[N,3,8,6]"),
    "Resize": (
        'b = Resize<mode="linear">(a, "", s)',
        {"s": np.float32([1, 2, 1.5, 1])},
        "float[N,4,16,9]",
    ),
    "Resize, region ignored": (
        'b = Resize<nearest_mode="floor">(a, r, s)',
        {"s": np.float32([1, 0.5, 2, 1]), "r": np.float32([0, 0, 0, 0, 1, 1, 1, 1])},
        "float[N,4,4,12]",
    ),
    "CumSum": ("b = CumSum<reverse=1>(a, k)", {"k": np.int64(-1)}, "float[N,4,8,6]"),
    "CumSum, exclusive": ("b = CumSum<exclusive=1>(a, k)", {"k": ints(1)}, "float[N,4,8,6]"),
    "ReduceMax": ("b = ReduceMax<axes=[1,-2]>(a)", {}, "float[N,4,1,1]"),
    "ArgMax": ("b = ArgMax<axis=-1>(a)", {}, "int64[N,1,8,6]"),
    "Softmax": ("b = Softmax(a)", {}, "float[N,4,8,6]"),
    "LogSoftmax": ("b = LogSoftmax<axis=2>(a)", {}, "float[N,4,8,6]"),
    "QDQ per tensor": (
        "q = QuantizeLinear(a, s, z) b = DequantizeLinear(q, s, z)",
        {"s": np.asarray(0.1, np.float32), "z": np.asarray(3, np.uint8)},
        "float[N,4,8,6]",
    ),
    "QDQ per channel": (
        "q = QuantizeLinear<axis=-1>(a, s) b = DequantizeLinear<axis=3>(q, s)",
        {"s": abs(weight(4)) + 0.1},
        "float[N,4,8,6]",
    ),
}


@pytest.mark.parametrize("name", SANDWICHES)
def test_two_transposes_around_it_go(name: str) -> None:
    middle, constants, out = SANDWICHES[name]
    free = "N,4,8,6" if "Slice" in name else "M,4,8,6"
    model = sandwich(middle, constants, out=out or f"float[{free}]".replace("N,4,8,6", "N,4,5,6"))
    kept = [op for op in ops(model) if op != "Transpose"]
    fused = assert_fuses(model, SINK, kept, reason=r"Transposes 2 -> 0", rtol=0)
    assert all(d.bytes_saved > 0 for d in fused.decisions)


def test_the_bytes_are_those_of_both_transposes() -> None:
    fused = fuse(sandwich("b = Relu(a)"), [SINK])
    assert [d.bytes_saved for d in fused.decisions] == [2 * 2 * 4 * 8 * 6 * 4]


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceL2", "ReduceLogSumExp"])
def test_a_sum_is_left_to_the_other_half(op: str) -> None:
    axes, constants = (
        ("(a, i)", {"i": ints(1, 2)}) if op == "ReduceSum" else ("<axes=[1,2]>(a)", {})
    )
    model = reduced(f"{op}{axes}", "float[N,1,1,4]", constants)
    assert_skips(model, SINK, f"{op} over other axes adds in another order")


def test_a_sum_of_whole_numbers_is_exact() -> None:
    text = f"{{ a = Transpose<{TO_NHWC}>(x) y = ReduceSum<keepdims=0>(a, i) }}"
    model = model_from(f"g (int32[N,4,8,6] x) => (int32[N,4] y) {text}", {"i": ints(1, 2)})
    assert_fuses(model, SINK, ["ReduceSum"], rtol=0)


BY_PLACE = ["Acos", "Asin", "Atan", "Celu", "Cos", "Elu", "Log", "Mish", "Selu", "Sin", "Softplus"]


@pytest.mark.parametrize("op", BY_PLACE)
def test_what_rounds_by_place_is_left_to_the_other_half(op: str) -> None:
    model = sandwich(f"b = {op}(a)", opset=18)
    assert_skips(model, SINK, f"ONNX Runtime rounds {op} by an element's place")


EXACT = [
    "Erf",
    "Exp",
    "Gelu",
    "HardSwish",
    "Sigmoid",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
    "Reciprocal",
]


@pytest.mark.parametrize("op", [*EXACT, "Softmax<axis=2>", "LogSoftmax<axis=-1>", "Abs"])
def test_seeded_shapes_keep_their_bits(op: str) -> None:
    for seed in range(25):
        random = np.random.default_rng(seed)
        n, c, h, w = (int(v) for v in random.integers(1, 20, 4))
        if seed % 3 == 0:
            w = int(random.integers(30, 200))
        perm = [int(a) for a in random.permutation(4)]
        back = [perm.index(a) for a in range(4)]
        text = f"g (float[{n},{c},{h},{w}] x) => (float[{n},{c},{h},{w}] y) "
        text += f"{{ a = Transpose<perm={perm}>(x) b = {op}(a) y = Transpose<perm={back}>(b) }}"
        model = model_from(text, opset=20, ir=9)
        assert_same_numbers(model, fuse(model, [SINK]), rtol=0)


def reduced(op: str, out: str, constants: dict[str, np.ndarray] | None = None) -> Model:
    text = f"g (float[N,4,8,6] x) => ({out} y) {{ a = Transpose<{TO_NHWC}>(x) y = {op} }}"
    return model_from(text, constants)


@pytest.mark.parametrize(
    ("op", "out", "left"),
    [
        ("ReduceMax<axes=[3], keepdims=0>(a)", "float[N,8,6]", []),
        ("ReduceMax<axes=[1], keepdims=0>(a)", "float[N,6,4]", ["Transpose"]),
        ("ReduceMax<keepdims=0>(a)", "float", []),
        ("ArgMin<axis=3, keepdims=0>(a)", "int64[N,8,6]", []),
        ("Gather<axis=3>(a, i)", "float[N,8,6]", []),
    ],
)
def test_what_a_reduce_leaves(op: str, out: str, left: list[str]) -> None:
    constants = {"i": np.asarray(2, np.int64)} if "(a, i)" in op else {}
    name = op.split("<")[0]
    assert_fuses(reduced(op, out, constants), SINK, [name, *left], rtol=0)


def test_squeeze_takes_it_in() -> None:
    text = (
        f"g (float[N,4,8,6] x) => (float[N,4,2] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "s = Slice(a, one, two, axis) q = Squeeze(s, axis) t = Slice(q, one, three, axis) "
        "y = Transpose<perm=[0,2,1]>(t) }"
    )
    constants = {"one": ints(1), "two": ints(2), "three": ints(3), "axis": ints(1)}
    assert_fuses(model_from(text, constants), SINK, ["Slice", "Squeeze", "Slice"], rtol=0)


def test_one_transpose_for_many_inputs() -> None:
    text = (
        f"g (float[N,4,8,6] x, float[N,3,8,6] z) => (float[N,8,6,7] y) {{ "
        f"a = Transpose<{TO_NHWC}>(x) b = Transpose<{TO_NHWC}>(z) y = Concat<axis=3>(a, b) }}"
    )
    # as many bytes behind the Concat as before it, in one pass over memory
    assert_fuses(model_from(text), SINK, ["Concat", "Transpose"], reason="2 -> 1", rtol=0)


def test_it_moves_to_the_narrow_side_of_a_cast() -> None:
    text = (
        "g (uint8[N,8,6,4] x) => (float[N,4,8,6] y) "
        f"{{ a = Cast<to=1>(x) y = Transpose<{TO_NCHW}>(a) }}"
    )
    fused = assert_fuses(model_from(text), SINK, ["Transpose", "Cast"], rtol=0)
    assert fused.decisions[0].bytes_saved == 2 * 3 * 8 * 6 * 4


def test_other_transposes_merge_with_it() -> None:
    text = (
        f"g (float[N,4,8,6] x) => (float[6,8,4,N] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "b = Relu(a) y = Transpose<perm=[2,1,3,0]>(b) }"
    )
    fused = assert_fuses(model_from(text), SINK, ["Relu", "Transpose"], rtol=0)
    assert list(fused.proto.graph.node[-1].attribute[0].ints) == [3, 2, 1, 0]


def test_a_value_needed_in_both_orders_is_transposed_once() -> None:
    """An output of the model in the middle keeps its name and content."""
    text = (
        f"g (float[N,4,8,6] x) => (float[N,8,6,4] m, float[N,4,8,6] y) {{ "
        f"a = Transpose<{TO_NHWC}>(x) m = Relu(a) b = Neg(m) y = Transpose<{TO_NCHW}>(b) }}"
    )
    assert_fuses(model_from(text), SINK, ["Relu", "Neg", "Transpose"], reason="2 -> 1", rtol=0)


def test_a_transpose_read_elsewhere_stays_for_that() -> None:
    text = (
        f"g (float[N,4,8,6] x) => (float[N,8,6,3] z, float[N,4,8,6] y) {{ "
        f"a = Transpose<{TO_NHWC}>(x) z = MatMul(a, w) b = Relu(a) y = Transpose<{TO_NCHW}>(b) }}"
    )
    model = model_from(text, {"w": weight(4, 3)})
    fused = fuse(model, [SINK])
    assert sorted(ops(fused)) == ["MatMul", "Relu", "Transpose"]
    assert_same_numbers(model, fused, rtol=0)


def test_the_same_exit_twice() -> None:
    text = (
        "g (float[N,4,8,6] x) => (float[N,4,8,6] y, float[N,4,8,6] z) "
        f"{{ a = Transpose<{TO_NHWC}>(x) b = Relu(a) c = Transpose<{TO_NCHW}>(b) y = Neg(c) "
        f"d = Transpose<{TO_NCHW}>(b) z = Abs(d) }}"
    )
    fused = fuse(model_from(text), ["cancel_transpose", SINK])
    assert sorted(ops(fused)) == ["Abs", "Neg", "Relu"]
    assert_same_numbers(model_from(text), fused, rtol=0)
    alone = fuse(model_from(text), [SINK])
    assert "Transpose" not in ops(alone)
    assert_same_numbers(model_from(text), alone, rtol=0)


def conv(name: str, source: str, *, kernel: int = 3, stride: int = 1) -> str:
    """As tf2onnx writes it: the Conv alone in NCHW."""
    pad = kernel // 2 if stride == 1 else 0
    return (
        f"{name}_t = Transpose<{TO_NCHW}>({source}) "
        f"{name}_c = Conv<pads=[{pad},{pad},{pad},{pad}], strides=[{stride},{stride}]>"
        f"({name}_t, {name}_w) "
        f"{name}_n = Transpose<{TO_NHWC}>({name}_c) {name}_b = Add({name}_n, {name}_k) "
    )


def tensorflow_network(batch: str = "N") -> Model:
    """A small residual network as tf2onnx writes it: only convolutions and pools are NCHW."""
    body = (
        "p0 = Pad(x, pads) "
        + conv("c1", "p0", stride=2)
        + f"r1 = Relu(c1_b) m_t = Transpose<{TO_NCHW}>(r1) "
        "m_p = MaxPool<kernel_shape=[2,2], strides=[2,1]>(m_t) "
        f"m = Transpose<{TO_NHWC}>(m_p) "
        + conv("c2", "m")
        + "r2 = Clip(c2_b, zero, six) "
        + conv("c3", "r2")
        # squeeze and excitation of c3
        + "s0 = ReduceMean<axes=[1,2], keepdims=1>(c3_b) "
        + conv("c4", "s0", kernel=1)
        + "s1 = Sigmoid(c4_b) s2 = Mul(c3_b, s1) "
        + conv("c5", "m", kernel=1)
        + "sum = Add(s2, c5_b) r3 = Relu(sum) cat = Concat<axis=3>(r3, m, r2) p1 = Pad(cat, pads) "
        + conv("c6", "p1", stride=2)
        + "h = HardSigmoid(c6_b) sw = Mul(c6_b, h) "
        "mean = ReduceMean<axes=[1,2], keepdims=0>(sw) fc = MatMul(mean, fc_w) "
        "fb = Add(fc, fc_k) y = Softmax<axis=-1>(fb) "
    )
    shapes = {
        "c1": (5, 3, 3, 3),
        "c2": (7, 5, 3, 3),
        "c3": (6, 7, 3, 3),
        "c4": (6, 6, 1, 1),
        "c5": (6, 5, 1, 1),
        "c6": (9, 18, 3, 3),
    }
    values = {f"{n}_w": weight(*s, seed=i) * 0.3 for i, (n, s) in enumerate(shapes.items())}
    values |= {f"{n}_k": weight(s[0], seed=i) for i, (n, s) in enumerate(shapes.items())}
    values |= {"fc_w": weight(9, 10), "fc_k": weight(10), "pads": ints(0, 1, 1, 0, 0, 2, 1, 0)}
    values |= {"zero": np.asarray(0, np.float32), "six": np.asarray(6, np.float32)}
    return model_from(f"g (float[{batch},20,30,3] x) => (float[{batch},10] y) {{ {body} }}", values)


@pytest.mark.parametrize("batch", ["N", "2"])
def test_a_tensorflow_network_keeps_only_its_input(batch: str) -> None:
    model = tensorflow_network(batch)
    assert ops(model).count("Transpose") == 14
    fused = fuse(model, ALL)
    left = [node for node in fused.proto.graph.node if node.op_type == "Transpose"]
    # the interface is NHWC: that one Transpose stays, on the input, the smallest value around
    assert [list(node.input) for node in left] == [["x"]]
    assert [op for op in ops(fused) if op in ("Reshape", "Identity")] == []
    assert len(ops(fused)) == len(ops(model)) - 13
    assert_same_numbers(model, fused, rtol=1e-6)


def test_segmentation_ends_with_one_transpose() -> None:
    """Where the output is NHWC too, one Transpose stays at each end."""
    body = conv("c1", "x") + "r = Relu(c1_b) " + conv("c2", "r") + "y = Softmax(c2_b)"
    values = {"c1_w": weight(9, 3, 3, 3), "c1_k": weight(9), "c2_w": weight(4, 9, 3, 3)}
    text = f"g (float[N,8,6,3] x) => (float[N,8,6,4] y) {{ {body} }}"
    model = model_from(text, {**values, "c2_k": weight(4)})
    fused = fuse(model, [SINK])
    assert ops(fused).count("Transpose") == 2
    assert_same_numbers(model, fused, rtol=0)


def test_a_reduce_to_one_value() -> None:
    model = sandwich("b = ReduceMin(a)", out="float[1,1,1,1]")
    assert_fuses(model, SINK, ["ReduceMin", "Transpose"], reason="2 -> 1", rtol=0)
    assert ops(fuse(model, ALL)) == ["ReduceMin"]


def test_a_single_value_stays_as_it_is() -> None:
    assert_fuses(sandwich("m = ReduceMax(a) b = Mul(a, m)"), SINK, ["ReduceMax", "Mul"], rtol=0)


def test_a_single_value_read_both_ways_keeps_its_transpose() -> None:
    text = (
        "g (float[1,4,8,6] x, float[1,1,1,1] s) => (float[1,5,8,6] y) "
        f"{{ a = Transpose<{TO_NHWC}>(x) z = Transpose<{TO_NHWC}>(s) c = Mul(a, z) "
        f"p = Tile(z, k) b = Concat<axis=3>(c, p) y = Transpose<{TO_NCHW}>(b) }}"
    )
    model = model_from(text, {"k": ints(1, 8, 6, 1)})
    fused = fuse(model, [SINK])
    assert sorted(ops(fused)) == ["Concat", "Mul", "Tile", "Transpose"]
    assert_same_numbers(model, fused, rtol=0)


def test_one_that_only_could_move_stays() -> None:
    """As many bytes before the Relu as behind it."""
    for last in ("Relu(a)", "Concat<axis=3>(a, a)"):
        fused = fuse(reduced(last, "float[A,B,C,D]"), [SINK])
        assert ops(fused) == ["Transpose", last.split("(")[0].split("<")[0]]
        assert len(fused.decisions) == (0 if "Relu" in last else 1)


def test_a_shuffle_is_not_touched() -> None:
    text = (
        "g (float[N,6,4,5] x) => (float[N,6,4,5] y) { a = Reshape(x, s) "
        "t = Transpose<perm=[0,2,1,3,4]>(a) y = Reshape(t, u) }"
    )
    model = model_from(text, {"s": ints(0, 2, 3, 4, 5), "u": ints(0, -1, 4, 5)})
    fused = fuse(model, ALL)
    assert ops(fused) == ops(model)
    assert not fused.decisions


def test_a_constant_that_raises_the_rank_stays() -> None:
    model = reduced("Add(a, k)", "float[2,N,8,6,4]", {"k": weight(2, 1, 1, 1, 4)})
    assert not fuse(model, [SINK]).decisions


def test_an_expand_that_raises_the_rank_stays() -> None:
    model = reduced("Expand(a, k)", "float[2,N,8,6,4]", {"k": ints(2, 1, 1, 1, 4)})
    assert not fuse(model, [SINK]).decisions


# what stays, and why
def test_skips_what_would_transpose_more() -> None:
    text = (
        f"g (float[N,4,1,6] x) => (float[N,8,6,4] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "y = Expand(a, k) }"
    )
    model = model_from(text, {"k": ints(8, 1, 4)})
    assert_skips(model, SINK, r"past Expand, transposes would move 1536 bytes instead of 192")


@pytest.mark.parametrize(
    ("op", "constants"),
    [
        ("Pad(a, k)", {"k": ints(0, 1, 0, 0, 0, 0, 0, 0)}),
        ("Tile(a, k)", {"k": ints(1, 3, 1, 1)}),
    ],
)
def test_skips_what_grows(op: str, constants: dict[str, np.ndarray]) -> None:
    out = "float[N,9,6,4]" if "Pad" in op else "float[N,24,6,4]"
    assert_skips(reduced(op, out, constants), SINK, r"bytes instead of 1536")


def slices(*widths: int) -> Model:
    """A slice of each width from a transposed map, every one an output."""
    outs = ", ".join(f"float[N,8,6,{w}] y{w}" for w in widths)
    body = " ".join(f"y{w} = Slice(a, zero, w{w}, axis)" for w in widths)
    constants = {"zero": ints(0), "axis": ints(3), **{f"w{w}": ints(w) for w in widths}}
    text = f"g (float[N,9,8,6] x) => ({outs}) {{ a = Transpose<{TO_NHWC}>(x) {body} }}"
    return model_from(text, constants)


def test_more_transposes_of_half_the_bytes() -> None:
    model = slices(1, 2)
    fused = fuse(model, [SINK])
    assert sorted(ops(fused)) == ["Slice", "Slice", "Transpose", "Transpose"]
    assert_same_numbers(model, fused, rtol=0)


def test_skips_more_transposes_of_little_less() -> None:
    reason = r"1 Transposes of 3456 bytes would become 2 of 3072"
    assert_skips(slices(5, 3), SINK, reason)


def test_expand_and_tile_turn_between_two() -> None:
    middle = "c = Expand(a, k) b = Tile(c, l)"
    model = sandwich(middle, {"k": ints(8, 1, 4), "l": ints(1, 1, 2, 3)}, out="float[N,12,8,12]")
    assert_fuses(model, SINK, ["Expand", "Tile"], rtol=0)


RUNTIME = (
    "g (float[N,4,8,6] x, {extra}) => (float[{dims}] y) {{ a = Transpose<perm=[0,2,3,1]>(x) {op} }}"
)


@pytest.mark.parametrize(
    ("extra", "dims", "op", "reason"),
    [
        ("int64[1] k", "N,D,E,F", "y = ReduceSum(a, k)", "axes of ReduceSum .* run time"),
        ("int64 k", "N,8,6,4", "y = CumSum(a, k)", "axis of CumSum is .* run time"),
        ("float[4] k", "N,D,E,F", 'y = Resize(a, "", k)', "sizes of Resize .* run time"),
        ("int64[8] k", "N,D,E,F", "y = Pad(a, k)", "pads are computed at run time"),
        ("int64[4] k", "N,D,E,F", "y = Expand(a, k)", "sizes of Expand .* run time"),
        ("int64[S] k", "N,D,E,F", "y = Slice(a, k, k)", "number of starts that isn't known"),
        ("int64[1] k", "C,D,E,F", "y = Slice(a, k, k, k)", "axes of Slice .* run time"),
        ("float[4] k", "N,8,6,4", "y = Add(a, k)", "Add broadcasts 'k', of fewer dimensions"),
        ("int64[1,1] k", "N,8,6,1,1", "y = Gather<axis=3>(a, k)", "indices of 2 dimensions"),
        ("float[1] k", "D,E", "y = Squeeze(a)", "Squeeze without axes"),
    ],
)
def test_skips_what_is_known_too_late(extra: str, dims: str, op: str, reason: str) -> None:
    model = model_from(RUNTIME.format(extra=extra, dims=dims, op=op))
    assert_skips(model, SINK, reason)


def test_skips_a_reduce_that_does_nothing() -> None:
    model = reduced("ReduceSum<noop_with_empty_axes=1>(a)", "float[N,8,6,4]")
    assert_skips(model, SINK, "ReduceSum without axes does nothing")


def test_skips_blocks_of_scales() -> None:
    how = "<axis=3, block_size=2>"
    text = f"q = QuantizeLinear{how}(a, s) b = DequantizeLinear{how}(q, s)"
    model = sandwich(text, {"s": abs(weight(1, 8, 6, 2)) + 0.1}, out="float[1,4,8,6]", opset=21)
    model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert_skips(model, SINK, "works on blocks")


def test_skips_unknown_shapes() -> None:
    text = (
        "g (float[N,4,8] x, int64[S] k) => (float[A,B,C] y) { a = Reshape(x, k) "
        "t = Transpose<perm=[0,2,1]>(a) y = Relu(t) }"
    )
    assert_skips(model_from(text), SINK, "shapes around the Transpose are unknown")


def test_skips_an_operand_of_unknown_shape() -> None:
    text = (
        "g (float[N,4,8,6] x, float[24] z, int64[S] k) => (float[A,B,C,D] y) { "
        f"a = Transpose<{TO_NHWC}>(x) b = Reshape(z, k) y = Add(a, b) }}"
    )
    assert_skips(model_from(text), SINK, "shapes around Add are unknown")


def test_ops_with_a_layout_are_left_alone() -> None:
    for op in ("BatchNormalization(a, k, k, k, k)", "Reshape(a, s)"):
        constants = {"k": abs(weight(8)), "w": weight(4, 4), "s": ints(0, 6, 8, 4)}
        used = {n: v for n, v in constants.items() if f" {n}" in op}
        shape = "N,6,8,4" if "Reshape" in op else "N,8,6,4"
        fused = fuse(reduced(op, f"float[{shape}]", used), [SINK])
        assert ops(fused) == ["Transpose", op.split("(")[0]]
        assert not skips(fused.decisions)


def test_resize_to_constant_sizes() -> None:
    model = sandwich('b = Resize(a, "", "", s)', {"s": ints(2, 12, 9, 4)}, out="float[2,4,12,9]")
    model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    assert_fuses(model, SINK, ["Resize"], rtol=0)


def test_resize_by_named_axes() -> None:
    middle = 'b = Resize<mode="linear", axes=[2, -3]>(a, "", s)'
    model = sandwich(middle, {"s": np.float32([1.5, 2])}, out="float[N,4,16,9]", opset=18)
    assert_fuses(model, SINK, ["Resize"], rtol=0)


HALF = {"s": np.float32([1, 2, 2, 1])}
WHAT_STAYS: dict[str, tuple[str, dict[str, np.ndarray], str, str]] = {
    "channels": (
        'Resize(a, "", s)',
        {"s": np.float32([1, 1, 1, 2])},
        "N,8,6,8",
        "resize an axis in front",
    ),
    "region": (
        'Resize<coordinate_transformation_mode="tf_crop_and_resize">(a, r, s)',
        {**HALF, "r": np.float32([0, 0, 0, 0, 1, 1, 1, 1])},
        "N,16,12,4",
        "Resize crops its axes",
    ),
    "aspect": (
        'Resize<axes=[1, 2], keep_aspect_ratio_policy="not_larger">(a, "", "", s)',
        {"s": ints(4, 4)},
        "N,4,3,4",
        "Resize keeps an aspect ratio",
    ),
    "cubic": ('Resize<mode="cubic">(a, "", s)', HALF, "N,16,12,4", "of a cubic Resize in another"),
    "LayerNormalization": (
        "LayerNormalization<axis=-1>(a, g)",
        {"g": weight(4)},
        "N,8,6,4",
        "LayerNormalization over another axis than the last adds in another order",
    ),
    "MatMul": ("MatMul(a, w)", {"w": weight(4, 5)}, "N,8,6,5", "MatMul over another axis"),
    "Reshape": (
        "Reshape(a, s)",
        {"s": ints(0, 8, 6, 2, 2)},
        "N,8,6,2,2",
        "Reshape divides the axes in the order they are in",
    ),
}


@pytest.mark.parametrize("name", WHAT_STAYS)
def test_skips_what_stays_in_its_order(name: str) -> None:
    op, constants, dims, reason = WHAT_STAYS[name]
    text = f"g (float[N,4,8,6] x) => (float[{dims}] y) {{ a = Transpose<{TO_NHWC}>(x) y = {op} }}"
    assert_skips(model_from(text, constants, opset=18), SINK, reason)


def test_skips_integers_that_resize_rounds() -> None:
    text = (
        f"g (uint8[N,4,8,6] x) => (uint8[N,16,12,4] y) {{ a = Transpose<{TO_NHWC}>(x) "
        'y = Resize<mode="linear">(a, "", s) }'
    )
    assert_skips(model_from(text, HALF), SINK, "Resize rounds integers")


@pytest.mark.parametrize(("mode", "turns"), [("linear", False), ("nearest", True)])
def test_rows_and_columns_that_change_places(mode: str, turns: bool) -> None:
    """ONNX Runtime interpolates rows first: the other way round the last bits differ."""
    text = f"""
    g (float[N,4,8,6] x) => (float[N,4,12,12] y) {{
        a = Transpose<perm=[0,1,3,2]>(x)  b = Resize<mode="{mode}">(a, "", s)
        y = Transpose<perm=[0,1,3,2]>(b)
    }}
    """
    model = model_from(text, {"s": np.float32([1, 1, 2, 1.5])})
    if turns:
        assert_fuses(model, SINK, ["Resize"], rtol=0)
    else:
        assert_skips(model, SINK, "Resize would interpolate its axes in another order")


def test_columns_alone_would_become_rows() -> None:
    """Of [N, H, W, C] with W resized alone ONNX Runtime takes W for rows."""
    text = f"""
    g (float[N,4,8,6] x) => (float[N,8,18,4] y) {{
        b = Resize<mode="linear">(x, "", s)  y = Transpose<{TO_NHWC}>(b)
    }}
    """
    model = model_from(text, {"s": np.float32([1, 1, 1, 3])})
    assert_skips(model, SINK, "Resize would interpolate its axes in another order")


def test_a_long_chain_takes_little() -> None:
    """More ops than one region may hold: it stays, and says nothing wrong."""
    chain = "".join(f"v{i + 1} = Relu(v{i}) " for i in range(600))
    ends = (f"v0 = Transpose<{TO_NHWC}>(x)", f"y = Transpose<{TO_NCHW}>(v600)")
    text = f"g (float[N,4,8,6] x) => (float[N,4,8,6] y) {{ {ends[0]} {chain} {ends[1]} }}"
    fused = fuse(model_from(text), [SINK])
    assert ops(fused).count("Transpose") == 2
