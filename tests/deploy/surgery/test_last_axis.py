"""Dense layers, normalizations and shuffles of the last axis between Transposes, and what keeps
them there."""

from __future__ import annotations

import numpy as np
import pytest
from channels_last import NETWORKS, channels_last
from helpers import assert_fuses, assert_same_numbers, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.target import Target

EXACT, ROUNDING = "sink_transpose", "sink_transpose_rounding"
TO_NHWC, TO_NCHW = "perm=[0,2,3,1]", "perm=[0,3,1,2]"
# a network's own outputs, a hundredth of a bit per layer
RELATIVE = 1e-6


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def sandwich(
    middle: str, constants: dict[str, np.ndarray], out: str = "N,4,8,6", opset: int = 18
) -> Model:
    """x [N,4,8,6] -> NHWC a [N,8,6,4] -> `middle` -> b -> NCHW y."""
    text = (
        f"g (float[N,4,8,6] x) => (float[{out}] y) "
        f"{{ a = Transpose<{TO_NHWC}>(x) {middle} y = Transpose<{TO_NCHW}>(b) }}"
    )
    return model_from(text, constants, opset=opset, ir=10)


# --- whole networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("written_out", [False, True], ids=["operator", "written out"])
@pytest.mark.parametrize("target", ["cpu", "xavier", "a100"])
@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_keras_network_keeps_no_transpose_inside(
    name: str, batch: int | str, target: str, written_out: bool
) -> None:
    model = channels_last(name, batch, written_out=written_out)
    assert ops(model).count("Transpose") >= 4
    fused = fuse(model, Target.load(target).fusions)
    left = [node for node in fused.proto.graph.node if node.op_type == "Transpose"]
    # its interface has channels last: the image comes so, and a map of classes leaves so
    ends = [["x"], ["Softmax"]] if name == "dense_on_maps" else [["x"]]
    readers = {n.input[0]: n.op_type for n in fused.proto.graph.node}
    assert [[n.input[0]] if n.input[0] == "x" else [readers[n.output[0]]] for n in left] == ends
    assert "Gather" not in ops(fused)
    assert_same_numbers(model, fused, rtol=RELATIVE)


def test_a_shufflenet_ends_without_a_shuffle() -> None:
    fused = fuse(channels_last("shufflenet_v2"), Target.load("cpu").fusions)
    assert not {"Reshape", "Gather"} & set(ops(fused))
    absorbed = [d.reason for d in fused.decisions if d.rule == "channel_layout"]
    assert any("3 shuffles absorbed" in reason for reason in absorbed)


# --- MatMul --------------------------------------------------------------------------------------


def test_a_dense_layer_on_a_map_is_a_conv() -> None:
    model = sandwich("b = MatMul(a, w)", {"w": weight(4, 5)}, "N,5,8,6")
    fused = assert_fuses(model, ROUNDING, ["Conv"], reason="Transposes 2 -> 0", rtol=1e-6)
    assert fused.decisions[0].bytes_saved == 2 * (4 + 5) * 8 * 6 * 4


@pytest.mark.parametrize("space", [(7,), (3, 2, 5)])
def test_maps_of_other_dimensions(space: tuple[int, ...]) -> None:
    rank, dims = len(space) + 2, ",".join(map(str, space))
    last, first = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
    text = (
        f"g (float[N,4,{dims}] x) => (float[N,3,{dims}] y) {{ a = Transpose<perm={last}>(x) "
        f"b = MatMul(a, w) y = Transpose<perm={first}>(b) }}"
    )
    assert_fuses(model_from(text, {"w": weight(4, 3)}), ROUNDING, ["Conv"], rtol=1e-6)


def test_where_the_last_axis_stays_the_last_it_stays_a_matmul() -> None:
    text = (
        "g (float[N,5,3,4] x) => (float[N,5,3,2] y) { a = Transpose<perm=[0,2,1,3]>(x) "
        "b = MatMul(a, w) y = Transpose<perm=[0,2,1,3]>(b) }"
    )
    assert_fuses(model_from(text, {"w": weight(4, 2)}), ROUNDING, ["MatMul"], rtol=1e-6)


def test_seeded_dense_layers_differ_by_round_off() -> None:
    for seed in range(12):
        random = np.random.default_rng(seed)
        channels, out = (int(size) for size in random.integers(1, 300, 2))
        map_ = ",".join(str(size) for size in random.integers(1, 12, 2))
        text = (
            f"g (float[2,{channels},{map_}] x) => (float[2,{out},{map_}] y) "
            f"{{ a = Transpose<{TO_NHWC}>(x) b = MatMul(a, w) y = Transpose<{TO_NCHW}>(b) }}"
        )
        model = model_from(text, {"w": weight(channels, out, seed=seed)})
        assert_same_numbers(model, fuse(model, [ROUNDING]), rtol=2e-6)


def test_the_exact_half_leaves_it() -> None:
    model = sandwich("b = MatMul(a, w)", {"w": weight(4, 5)}, "N,5,8,6")
    assert_skips(model, EXACT, "MatMul over another axis than the last adds in another order")


def test_skips_a_matmul_over_no_channels() -> None:
    text = (
        "g (float[2,4,8,6] x) => (float[2,4,6,5] y) { a = Transpose<perm=[0,1,3,2]>(x) "
        "y = MatMul(a, w) }"
    )
    assert_skips(model_from(text, {"w": weight(8, 5)}), EXACT, "not the channels of a Conv")


def test_skips_a_matmul_in_float64() -> None:
    text = (
        f"g (double[N,4,8,6] x) => (double[N,5,8,6] y) {{ a = Transpose<{TO_NHWC}>(x) "
        f"b = MatMul(a, w) y = Transpose<{TO_NCHW}>(b) }}"
    )
    model = model_from(text, {"w": weight(4, 5, dtype="float64")})
    assert_skips(model, EXACT, "MatMul computes in float64")


@pytest.mark.parametrize(
    ("dims", "perm", "w"),
    [("N,4,2,3,2,2", [0, 2, 3, 4, 5, 1], weight(4, 5)), ("N,4,8,6", [0, 2, 3, 1], weight(4))],
    ids=["six dimensions", "a vector"],
)
def test_what_is_no_dense_layer_stays(dims: str, perm: list[int], w: np.ndarray) -> None:
    sizes = [dims.split(",")[axis] for axis in perm[:-1]] + ["5"][: w.ndim - 1]
    text = f"g (float[{dims}] x) => (float[{','.join(sizes)}] y) "
    text += f"{{ a = Transpose<perm={perm}>(x) y = MatMul(a, w) }}"
    fused = fuse(model_from(text, {"w": w}), [ROUNDING])
    assert ops(fused) == ["Transpose", "MatMul"]
    assert not fused.decisions


def test_a_matrix_per_row_of_the_map_stays() -> None:
    model = sandwich("b = MatMul(a, w)", {"w": weight(8, 4, 5)}, "N,5,8,6")
    fused = fuse(model, [EXACT, ROUNDING])
    assert ops(fused) == ops(model)
    assert not fused.decisions


def test_a_dense_layer_that_narrows_takes_the_transpose_behind_it() -> None:
    text = (
        f"g (float[N,40,8,6] x) => (float[N,8,6,3] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "y = MatMul(a, w) }"
    )
    model = model_from(text, {"w": weight(40, 3)})
    assert_fuses(model, ROUNDING, ["Conv", "Transpose"], reason="1 -> 1", rtol=1e-6)


def test_skips_a_dense_layer_that_narrows_little() -> None:
    text = (
        f"g (float[N,40,8,6] x) => (float[N,8,6,30] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "y = MatMul(a, w) }"
    )
    reason = "1 Transposes of 15360 bytes would become 1 of 11520"
    assert_skips(model_from(text, {"w": weight(40, 30)}), ROUNDING, reason)


def test_skips_a_dense_layer_that_widens() -> None:
    text = (
        f"g (float[N,3,8,6] x) => (float[N,8,6,40] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "y = MatMul(a, w) }"
    )
    model = model_from(text, {"w": weight(3, 40)})
    assert_skips(model, ROUNDING, "past MatMul, transposes would move 15360 bytes instead of 1152")


# --- normalizations ------------------------------------------------------------------------------

LAYER = ["ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]
RMS = ["Mul", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]


@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_over_channels_is_written_out(bias: bool) -> None:
    text = f"b = LayerNormalization<axis=-1, epsilon=0.01>(a, g{', k' if bias else ''})"
    model = sandwich(text, {"g": weight(4), **({"k": weight(4, seed=1)} if bias else {})})
    wanted = [*LAYER, "Add"] if bias else LAYER
    fused = assert_fuses(model, ROUNDING, wanted, reason="Transposes 2 -> 0")
    # two Transposes less, and its map read twice more
    assert fused.decisions[0].bytes_saved == (2 * 2 - 2) * 4 * 8 * 6 * 4


def test_rms_norm_over_channels_is_written_out() -> None:
    text = "b = RMSNormalization<axis=3, epsilon=0.01>(a, g)"
    model = sandwich(text, {"g": weight(4)}, opset=23)
    fused = assert_fuses(model, ROUNDING, RMS, reason="Transposes 2 -> 0")
    assert fused.decisions[0].bytes_saved == (2 * 2 - 1) * 4 * 8 * 6 * 4


@pytest.mark.parametrize("scale", [(8, 6, 4), (1, 4), (6, 1)])
def test_over_all_but_the_batch_it_stays_an_operator(scale: tuple[int, ...]) -> None:
    scales = {"g": weight(*scale), "k": weight(8, 6, 4, seed=1)}
    model = sandwich("b = LayerNormalization<axis=1>(a, g, k)", scales)
    fused = assert_fuses(model, ROUNDING, ["LayerNormalization"], reason="2 -> 0")
    assert {tuple(w.dims) for w in fused.proto.graph.initializer} == {(4, 8, 6)}


def test_over_an_axis_that_stays_the_last() -> None:
    text = (
        "g (float[N,5,3,4] x) => (float[N,5,3,4] y) { a = Transpose<perm=[0,2,1,3]>(x) "
        "b = LayerNormalization<axis=3>(a, g) y = Transpose<perm=[0,2,1,3]>(b) }"
    )
    model = model_from(text, {"g": weight(4)})
    assert_fuses(model, ROUNDING, ["LayerNormalization"], rtol=1e-6)


def test_skips_a_norm_that_frees_one_transpose_only() -> None:
    text = (
        f"g (float[N,4,8,6] x) => (float[N,8,6,4] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "y = LayerNormalization(a, g) }"
    )
    reason = "past LayerNormalization, transposes would move 3072 bytes instead of 1536"
    assert_skips(model_from(text, {"g": weight(4)}), ROUNDING, reason)


def test_skips_a_norm_in_float16() -> None:
    text = (
        f"g (float16[N,4,8,6] x) => (float16[N,4,8,6] y) {{ a = Transpose<{TO_NHWC}>(x) "
        f"b = LayerNormalization(a, g) y = Transpose<{TO_NCHW}>(b) }}"
    )
    model = model_from(text, {"g": weight(4, dtype="float16")})
    assert_skips(model, EXACT, "float32 statistics whatever its input is, here float16")


def test_skips_a_norm_whose_mean_is_asked_for() -> None:
    text = (
        f"g (float[N,4,8,6] x) => (float[N,4,8,6] y, float[N,8,6,1] m) {{ "
        f"a = Transpose<{TO_NHWC}>(x) b, m = LayerNormalization(a, g) "
        f"y = Transpose<{TO_NCHW}>(b) }}"
    )
    reason = "the mean and deviation of LayerNormalization are asked for"
    assert_skips(model_from(text, {"g": weight(4)}), EXACT, reason)


def test_skips_a_scale_at_run_time() -> None:
    text = (
        f"g (float[N,4,8,6] x, float[4] g) => (float[N,4,8,6] y) {{ a = Transpose<{TO_NHWC}>(x) "
        f"b = LayerNormalization(a, g) y = Transpose<{TO_NCHW}>(b) }}"
    )
    assert_skips(model_from(text), EXACT, "of LayerNormalization, .* known at run time only")


# --- shuffles ------------------------------------------------------------------------------------

SHUFFLE = "r = Reshape(a, s) t = Transpose<perm=[0,1,2,4,3]>(r) b = Reshape(t, u)"
AS_ONE = ["Reshape", "Transpose", "Reshape"]


@pytest.mark.parametrize(
    ("s", "u"),
    [((0, 8, 6, 2, 2), (-1, 8, 6, 4)), ((-1, 8, 6, 2, 2), (0, 0, 0, 4)), ((0, 0, 0, 2, 2),) * 2],
)
def test_a_shuffle_moves_to_the_other_axis(s: tuple[int, ...], u: tuple[int, ...]) -> None:
    u = u if len(u) == 4 else (0, 0, 6, -1)
    model = sandwich(SHUFFLE, {"s": ints(*s), "u": ints(*u)})
    fused = assert_fuses(model, EXACT, AS_ONE, reason="Transposes 2 -> 0", rtol=0)
    inner = next(n for n in fused.proto.graph.node if n.op_type == "Transpose")
    assert list(inner.attribute[0].ints) == [0, 2, 1, 3, 4]


def test_a_shuffle_with_the_pixels_joined() -> None:
    text = "r = Reshape(a, s) t = Transpose<perm=[0,1,3,2]>(r) b = Reshape(t, u)"
    model = sandwich(text, {"s": ints(-1, 48, 2, 2), "u": ints(-1, 8, 6, 4)})
    assert_fuses(model, EXACT, AS_ONE, rtol=0)


def test_a_shuffle_of_more_factors() -> None:
    text = (
        f"g (float[N,12,3,5] x) => (float[N,12,3,5] y) {{ a = Transpose<{TO_NHWC}>(x) "
        f"r = Reshape(a, s) t = Transpose<perm=[0,1,2,5,3,4]>(r) b = Reshape(t, u) "
        f"y = Transpose<{TO_NCHW}>(b) }}"
    )
    model = model_from(text, {"s": ints(0, 3, 5, 2, 3, 2), "u": ints(0, 3, 5, 12)})
    assert_fuses(model, EXACT, AS_ONE, rtol=0)


def test_a_shuffle_of_a_map_of_free_size_is_a_gather() -> None:
    text = (
        f"g (float[N,6,H,W] x) => (float[N,6,H,W] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "r = Reshape(a, s) t = Transpose<perm=[0,1,2,4,3]>(r) z = Shape(a) b = Reshape(t, z) "
        f"y = Transpose<{TO_NCHW}>(b) }}"
    )
    model = model_from(text, {"s": ints(0, 0, 0, 2, 3)})
    fused = fuse(model, [EXACT])
    assert [op for op in ops(fused) if op not in ("Shape", "Transpose")] == ["Gather"]
    assert_same_numbers(model, fused, rtol=0)


def test_a_free_width_is_the_rest() -> None:
    text = SHUFFLE.replace("N,", "")
    model = model_from(
        f"g (float[2,4,8,W] x) => (float[2,4,8,W] y) {{ a = Transpose<{TO_NHWC}>(x) {text} "
        f"y = Transpose<{TO_NCHW}>(b) }}",
        {"s": ints(2, 8, -1, 2, 2), "u": ints(2, 8, -1, 4)},
    )
    assert_fuses(model, EXACT, AS_ONE, rtol=0)


@pytest.mark.parametrize(
    ("perm", "s", "u"),
    [
        ("0,2,1,4,3", (0, 8, 6, 2, 2), (0, 8, 6, 4)),
        ("0,1,2,4,3", (0, 8, 6, 2, 2), (0, 6, 8, 4)),
        ("0,1,2,4,3", (0, 8, 3, 2, 4), (0, 8, 6, 4)),
    ],
    ids=["moves pixels", "ends in other sizes", "takes pixels in"],
)
def test_what_moves_more_than_channels_stays(
    perm: str, s: tuple[int, ...], u: tuple[int, ...]
) -> None:
    text = SHUFFLE.replace("0,1,2,4,3", perm)
    out = "N,4,6,8" if u[1] == 6 else "N,4,8,6"
    model = sandwich(text, {"s": ints(*s), "u": ints(*u)}, out)
    fused = fuse(model, [EXACT])
    assert ops(fused) == ops(model)


def test_a_shuffle_whose_inside_is_an_output_stays() -> None:
    text = (
        f"g (float[N,4,8,6] x) => (float[N,4,8,6] y, float[N,8,6,2,2] r) {{ "
        f"a = Transpose<{TO_NHWC}>(x) {SHUFFLE} y = Transpose<{TO_NCHW}>(b) }}"
    )
    model = model_from(text, {"s": ints(0, 8, 6, 2, 2), "u": ints(0, 8, 6, 4)})
    assert_skips(model, EXACT, "Reshape divides the axes in the order they are in")


def test_a_shuffle_that_stays_holds_nothing_else() -> None:
    text = (
        f"g (float[N,4,8,6] x) => (float[N,4,8,6] y, float[N,8,6,2,2] r, float[N,4,8,6] z) {{ "
        f"a = Transpose<{TO_NHWC}>(x) {SHUFFLE} c = Relu(a) d = Add(c, b) e = Neg(d) "
        f"y = Transpose<{TO_NCHW}>(d) z = Transpose<{TO_NCHW}>(e) }}"
    )
    model = model_from(text, {"s": ints(0, 8, 6, 2, 2), "u": ints(0, 8, 6, 4)})
    fused = fuse(model, [EXACT])
    assert any("Transposes 2 -> 1" in d.reason for d in fused.decisions)
    assert_same_numbers(model, fused, rtol=0)
