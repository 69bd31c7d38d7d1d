"""fold_affine_before: which arithmetic folds into the layer behind it, and why the rest doesn't."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.fuse import fuse

FOLD = "fold_affine_before"
BN = "BatchNormalization(x, gamma, beta, mean, var)"
SCALES = {"Mul": "Mul(x, k)", "Mul turned": "Mul(k, x)", "Div": "Div(x, k)"}
SHIFTS = {
    "Add": "Add(x, k)",
    "Add turned": "Add(k, x)",
    "Sub": "Sub(x, k)",
    "Sub turned": "Sub(k, x)",
    "BatchNormalization": BN,
}
# name: layer, weights, dims of x, dims of y, input channels, output channels
LAYERS = {
    "plain": ("Conv(a, w, b)", (4, 3, 3, 2), "N,3,8,6", "N,4,6,5", 3, 4),
    "no bias": ("Conv(a, w)", (4, 3, 3, 2), "N,3,8,6", "N,4,6,5", 3, 4),
    "valid": ('Conv<auto_pad="VALID">(a, w, b)', (4, 3, 3, 2), "N,3,8,6", "N,4,6,5", 3, 4),
    "1x1, same": (
        'Conv<auto_pad="SAME_UPPER", strides=[2,2]>(a, w, b)',
        (4, 3, 1, 1),
        "N,3,8,6",
        "N,4,4,3",
        3,
        4,
    ),
    "grouped": ("Conv<group=3>(a, w, b)", (12, 2, 3, 2), "N,6,8,6", "N,12,6,5", 6, 12),
    "depthwise": ("Conv<group=6>(a, w)", (6, 1, 3, 2), "N,6,8,6", "N,6,6,5", 6, 6),
    "1-D": ("Conv(a, w, b)", (4, 3, 5), "N,3,11", "N,4,7", 3, 4),
    "1x1 transposed": ("ConvTranspose(a, w, b)", (3, 4, 1, 1), "N,3,5,4", "N,4,5,4", 3, 4),
    "1x1 transposed, grouped": (
        "ConvTranspose<group=3>(a, w, b)",
        (6, 5, 1, 1),
        "N,6,5,4",
        "N,15,5,4",
        6,
        15,
    ),
    "transB=0": ("Gemm(a, w, b)", (7, 5), "N,7", "N,5", 7, 5),
    "alpha, beta, transB": (
        "Gemm<alpha=-1.5, beta=3.0, transB=1>(a, w, b)",
        (5, 7),
        "N,7",
        "N,5",
        7,
        5,
    ),
    "alpha, no bias": ("Gemm<alpha=0.5>(a, w)", (7, 5), "N,7", "N,5", 7, 5),
}
# a scale folds into these as well
SCALED_LAYERS = {
    "padded": ("Conv<pads=[1,2,1,0]>(a, w, b)", (4, 3, 3, 3), "N,3,8,6", "N,4,8,6", 3, 4),
    "same": ('Conv<auto_pad="SAME_LOWER">(a, w)', (4, 3, 3, 3), "N,3,8,6", "N,4,8,6", 3, 4),
    "transposed": (
        "ConvTranspose<strides=[2,1], output_padding=[1,0]>(a, w, b)",
        (3, 4, 2, 3),
        "N,3,5,4",
        "N,4,11,6",
        3,
        4,
    ),
    "transposed, grouped": (
        "ConvTranspose<group=3>(a, w, b)",
        (6, 5, 2, 3),
        "N,6,5,4",
        "N,15,6,6",
        6,
        15,
    ),
    "MatMul": ("MatMul(a, w)", (7, 5), "N,7", "N,5", 7, 5),
    "MatMul, rank 3": ("MatMul(a, w)", (7, 5), "N,3,7", "N,3,5", 7, 5),
}


def batchnorm(channels: int) -> dict[str, np.ndarray]:
    return {
        "gamma": weight(channels, seed=1),
        "beta": weight(channels, seed=2),
        "mean": weight(channels, seed=3),
        "var": abs(weight(channels, seed=4)) + 0.5,
    }


def model(front: str, layer: str, k: np.ndarray | None = None) -> Model:
    text, shape, dims_in, dims_out, channels, out = {**LAYERS, **SCALED_LAYERS}[layer]
    last = text.startswith("MatMul")
    full = (channels,) if last else (channels, *(1,) * (dims_in.count(",") - 1))
    values = {"w": weight(*shape), "b": weight(out, seed=9), **batchnorm(channels)}
    values["k"] = (abs(weight(channels, seed=8)) + 0.5).reshape(full) if k is None else k
    text = f"g (float[{dims_in}] x) => (float[{dims_out}] y) {{ a = {front} y = {text} }}"
    used = {n: v for n, v in values.items() if f" {n}," in text.replace(")", ",").replace("(", " ")}
    return model_from(text, used)


def conv(front: str, layer: str = "Conv(a, w, b)", **constants: np.ndarray) -> Model:
    text = f"g (float[N,3,8,6] x) => (float[N,4,P,Q] y) {{ a = {front} y = {layer} }}"
    return model_from(text, {"w": weight(4, 3, 3, 2), "b": weight(4, seed=9), **constants})


@pytest.mark.parametrize("front", [*SCALES.values(), *SHIFTS.values()], ids=[*SCALES, *SHIFTS])
@pytest.mark.parametrize("layer", LAYERS)
def test_folds_scale_and_shift(layer: str, front: str) -> None:
    op = LAYERS[layer][0].split("(")[0].split("<")[0]
    assert_fuses(model(front, layer), FOLD, [op], reason=rf"folded into {op} behind it")


@pytest.mark.parametrize("front", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("layer", SCALED_LAYERS)
def test_a_scale_folds_where_a_shift_may_not(layer: str, front: str) -> None:
    op = SCALED_LAYERS[layer][0].split("(")[0].split("<")[0]
    assert_fuses(model(front, layer), FOLD, [op], reason=rf"folded into {op} behind it")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)])
@pytest.mark.parametrize("front", ["Mul(x, k)", "Sub(k, x)"])
def test_folds_a_scalar(front: str, shape: tuple[int, ...]) -> None:
    assert_fuses(model(front, "plain", np.full(shape, 1.75, np.float32)), FOLD, ["Conv"])


def test_the_numbers_by_hand() -> None:
    """y = 2 (3x - 5) + 1 = 6x - 9."""
    text = (
        "g (float[N,1,2,3] x) => (float[N,1,2,3] y) "
        "{ m = Mul(x, k) s = Sub(m, l) y = Conv(s, w, b) }"
    )
    values = {"w": [[[[2.0]]]], "b": [1.0], "k": [3.0], "l": [5.0]}
    fused = assert_fuses(
        model_from(text, {n: np.asarray(v, np.float32) for n, v in values.items()}), FOLD, ["Conv"]
    )
    folded = [numpy_helper.to_array(i).tolist() for i in fused.proto.graph.initializer]
    assert folded == [[[[[6.0]]]], [-9.0]]
    assert [d.bytes_saved for d in fused.decisions] == [2 * 6 * 4, 2 * 6 * 4]


def matmul(front: str, behind: str, rank: str = "N,3,7", out: str = "N,3,5") -> Model:
    text = f"g (float[{rank}] x) => (float[{out}] y) {{ a = {front} m = MatMul(a, w) {behind} }}"
    values = {"w": weight(7, 5), "k": weight(7, seed=1), "l": weight(5, seed=2)}
    return model_from(text, {n: v for n, v in values.items() if f"{n})" in text or n == "w"})


@pytest.mark.parametrize("front", ["Add(x, k)", "Sub(x, k)"])
def test_a_matmul_takes_a_shift_into_the_add_behind_it(front: str) -> None:
    assert_fuses(matmul(front, "y = Add(m, l)"), FOLD, ["MatMul", "Add"], reason="into MatMul")


def test_a_matrix_of_inputs_is_normalized_per_column() -> None:
    text = f"g (float[N,7] x) => (float[N,5] y) {{ a = {BN} m = MatMul(a, w) y = Add(l, m) }}"
    values = {"w": weight(7, 5), "l": weight(1, 5), **batchnorm(7)}
    assert_fuses(model_from(text, values), FOLD, ["MatMul", "Add"])


def test_all_layers_that_read_the_value_fold_together() -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,4,6,5] y, float[N,2,8,6] z) {
        a = Add(x, k)  y = Conv(a, w)  z = Conv(a, v, b)
    }
    """
    values = {
        "w": weight(4, 3, 3, 2),
        "v": weight(2, 3, 1, 1),
        "b": weight(2),
        "k": weight(3, 1, 1),
    }
    fused = assert_fuses(model_from(text, values), FOLD, ["Conv", "Conv"])
    assert [d.bytes_saved for d in fused.decisions] == [2 * 4 * 3 * 8 * 6]


def test_a_bias_at_run_time_stays_under_a_scale() -> None:
    text = (
        "g (float[N,3,8,6] x, float[4] b) => (float[N,4,6,5] y) { a = Mul(x, k) y = Conv(a, w, b) }"
    )
    values = {"w": weight(4, 3, 3, 2), "k": weight(3, 1, 1)}
    assert_fuses(model_from(text, values), FOLD, ["Conv"])


@pytest.mark.parametrize(("dtype", "rtol"), [("float16", 5e-3), ("double", 1e-12)])
def test_other_float_types_keep_their_type(dtype: str, rtol: float) -> None:
    kind = {"double": "float64"}.get(dtype, dtype)
    text = f"g ({dtype}[N,7] x) => ({dtype}[N,5] y) {{ a = Add(x, k) y = Gemm(a, w) }}"
    values = {"w": weight(7, 5, dtype=kind), "k": weight(7, dtype=kind)}
    assert_fuses(model_from(text, values), FOLD, ["Gemm"], rtol=rtol)


def reshaped(front: str, layer: str, **constants: np.ndarray) -> Model:
    """`front` on a value r of unknown shape, then the layer on a."""
    text = (
        "g (float[N,3,8,6] x, int64[R] s) => (float[N,4,P,Q] y) "
        f"{{ r = Reshape(x, s) a = {front} y = {layer} }}"
    )
    return model_from(text, constants)


def test_an_unknown_shape_takes_a_scalar_of_lower_rank() -> None:
    made = reshaped("Mul(r, k)", "Conv(a, w)", w=weight(4, 3, 3, 2), k=weight(1))
    assert ops(fuse(made, [FOLD])) == ["Reshape", "Conv"]


def test_batch_normalization_folds_whatever_the_shape() -> None:
    front = BN.replace("(x", "(r")
    made = reshaped(front, "Conv(a, w)", w=weight(4, 3, 3, 2), **batchnorm(3))
    assert ops(fuse(made, [FOLD])) == ["Reshape", "Conv"]


def test_skips_an_unknown_shape_that_the_constant_may_set() -> None:
    made = reshaped("Mul(r, k)", "MatMul(a, w)", w=weight(6, 5), k=weight(6))
    assert_skips(made, FOLD, r"the constant of Mul, \[6\], is not one per channel")
    made = reshaped("Mul(r, k)", "Conv(a, w)", w=weight(4, 3, 3, 2), k=weight(1, 1, 1, 1))
    assert_skips(made, FOLD, r"the constant of Mul, \[1, 1, 1, 1\], is not one per channel")


# ---- what doesn't fold, and why


@pytest.mark.parametrize(
    "layer", ["Conv<pads=[0,0,1,0]>(a, w, b)", 'Conv<auto_pad="SAME_UPPER">(a, w)']
)
def test_skips_a_shift_in_front_of_padding(layer: str) -> None:
    assert_skips(conv("Add(x, k)", layer, k=weight(1)), FOLD, "shift doesn't reach the zeros")


@pytest.mark.parametrize(
    ("layer", "kernel"),
    [
        ("ConvTranspose(a, w)", (3, 4, 2, 3)),
        ("ConvTranspose<strides=[2,1]>(a, w)", (3, 4, 1, 1)),
        ("ConvTranspose<pads=[1,0,0,0]>(a, w)", (3, 4, 1, 1)),
        ("ConvTranspose<strides=[1,2], output_padding=[0,1]>(a, w)", (3, 4, 1, 1)),
        ("ConvTranspose<output_shape=[8,6]>(a, w)", (3, 4, 1, 1)),
    ],
)
def test_skips_a_shift_in_front_of_a_spreading_layer(layer: str, kernel: tuple[int, ...]) -> None:
    text = f"g (float[N,3,8,6] x) => (float[N,4,P,Q] y) {{ a = Add(x, k) y = {layer} }}"
    made = model_from(text, {"w": weight(*kernel), "k": weight(1)})
    assert_skips(made, FOLD, "shift in front of ConvTranspose varies")


def test_skips_a_shift_that_no_bias_takes() -> None:
    assert_skips(matmul("Add(x, k)", "y = Relu(m)"), FOLD, "no Add of a constant behind MatMul")
    assert_skips(matmul("Add(x, k)", "y = Add(m, m)"), FOLD, "no Add of a constant behind MatMul")
    assert_skips(matmul("Add(x, k)", "y = Mul(m, l)"), FOLD, "no Add of a constant behind MatMul")
    text = "r = Add(m, l) y = Mul(r, m)"
    assert_skips(matmul("Add(x, k)", text), FOLD, "no Add of a constant behind MatMul")


def test_skips_a_shift_in_front_of_an_output_of_the_model() -> None:
    text = "g (float[N,7] x) => (float[N,5] y) { a = Add(x, k) y = MatMul(a, w) }"
    made = model_from(text, {"w": weight(7, 5), "k": weight(7)})
    assert_skips(made, FOLD, "no Add of a constant behind MatMul")


def test_skips_batch_normalization_over_another_axis() -> None:
    text = f"g (float[N,7,7] x) => (float[N,7,5] y) {{ a = {BN} y = MatMul(a, w) }}"
    made = model_from(text, {"w": weight(7, 5), **batchnorm(7)})
    assert_skips(made, FOLD, "scales axis 1, and MatMul sums over the last")


@pytest.mark.parametrize("shape", [(6,), (8, 1), (3, 8, 1)])
def test_skips_a_constant_that_is_not_one_per_channel(shape: tuple[int, ...]) -> None:
    made = conv("Mul(x, k)", k=weight(*shape))
    assert_skips(made, FOLD, "the constant of Mul, .* is not one per channel")


def test_skips_a_constant_that_raises_the_rank() -> None:
    text = "g (float[3,8,6] x) => (float[1,4,6,5] y) { a = Mul(x, k) y = Conv(a, w) }"
    made = model_from(text, {"w": weight(4, 3, 3, 2), "k": weight(1, 3, 1, 1)})
    assert_skips(made, FOLD, r"the constant of Mul, \[1, 3, 1, 1\], is not one per channel")


def test_skips_a_constant_that_makes_the_channels() -> None:
    text = "g (float[N,1,8,6] x) => (float[N,4,6,5] y) { a = Mul(x, k) y = Conv(a, w) }"
    made = model_from(text, {"w": weight(4, 3, 3, 2), "k": weight(3, 1, 1)})
    assert_skips(made, FOLD, "Mul may also broadcast 'x' to 3 channels")


def test_skips_weights_computed_at_run_time() -> None:
    text = (
        "g (float[N,3,8,6] x, float[4,3,3,2] w) => (float[N,4,6,5] y) "
        "{ a = Mul(x, k) y = Conv(a, w) }"
    )
    assert_skips(model_from(text, {"k": weight(1)}), FOLD, "weights of Conv are computed at run")


def test_skips_a_bias_computed_at_run_time() -> None:
    text = (
        "g (float[N,3,8,6] x, float[4] b) => (float[N,4,6,5] y) { a = Add(x, k) y = Conv(a, w, b) }"
    )
    made = model_from(text, {"w": weight(4, 3, 3, 2), "k": weight(1)})
    assert_skips(made, FOLD, "the bias of Conv is computed at run time")


def test_skips_weights_per_batch() -> None:
    text = "g (float[2,3,7] x) => (float[2,3,5] y) { a = Mul(x, k) y = MatMul(a, w) }"
    made = model_from(text, {"w": weight(2, 7, 5), "k": weight(1)})
    assert_skips(made, FOLD, r"the weights of MatMul, \[2, 7, 5\], are not a matrix")


def test_skips_a_transposed_input() -> None:
    text = "g (float[7,N] x) => (float[N,5] y) { a = Mul(x, k) y = Gemm<transA=1>(a, w) }"
    made = model_from(text, {"w": weight(7, 5), "k": weight(1)})
    assert_skips(made, FOLD, "Gemm reads its input transposed")


def test_skips_a_layer_that_also_adds_the_value() -> None:
    text = "g (float[N,5] x) => (float[N,5] y) { a = Mul(x, k) y = Gemm(a, w, a) }"
    made = model_from(text, {"w": weight(5, 5), "k": weight(1)})
    assert_skips(made, FOLD, "Gemm also adds 'a'")


def test_skips_integers_whose_scale_would_be_rounded() -> None:
    text = "g (int32[N,7] x) => (int32[N,5] y) { a = Div(x, k) y = MatMul(a, w) }"
    made = model_from(
        text, {"w": np.arange(35, dtype=np.int32).reshape(7, 5), "k": np.array([2], np.int32)}
    )
    assert_skips(made, FOLD, "MatMul computes in int32")


@pytest.mark.parametrize(("front", "k", "times"), [("Mul(x, k)", 3e38, 1), ("Add(x, k)", 60, 1e37)])
def test_skips_what_would_not_be_finite(front: str, k: float, times: float) -> None:
    made = conv(front, k=np.float32([k]))
    large = (weight(4, 3, 3, 2) + 9) * np.float32(times)
    made.proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(large, "w"))
    assert_skips(made, FOLD, "the folded weights would not be finite")


def test_skips_where_one_of_two_layers_cannot_fold() -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,4,6,5] y, float[N,4,8,5] z) {
        a = Add(x, k)  y = Conv(a, w)  z = Conv<pads=[1,0,1,0]>(a, w)
    }
    """
    made = model_from(text, {"w": weight(4, 3, 3, 2), "k": weight(1)})
    assert_skips(made, FOLD, "shift doesn't reach the zeros")


def test_skips_a_value_that_others_read() -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,4,6,5] y, float[N,3,8,6] z) {
        a = Mul(x, k)  y = Conv(a, w)  z = Relu(a)
    }
    """
    made = model_from(text, {"w": weight(4, 3, 3, 2), "k": weight(1)})
    assert_skips(made, FOLD, "'a' is also read by 'Relu -> z'")


def test_training_mode_is_skipped() -> None:
    front = "BatchNormalization<training_mode=1>(x, gamma, beta, mean, var)"
    text = f"g (float[N,3,8,6] x) => (float[N,4,6,5] y) {{ a, m, v = {front} y = Conv(a, w) }}"
    made = model_from(text, {"w": weight(4, 3, 3, 2), **batchnorm(3)})
    assert_skips(made, FOLD, "training mode")


def test_skips_a_scale_too_large_next_to_a_shift_that_is_not() -> None:
    constants = {**batchnorm(3), "gamma": np.full(3, 3e38, np.float32), "mean": np.zeros(3)}
    made = conv(BN, **{n: np.asarray(v, np.float32) for n, v in constants.items()})
    made.proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight(4, 3, 3, 2) + 9, "w"))
    assert_skips(made, FOLD, "the folded weights would not be finite")


HALF_LAYERS = {
    "Conv": ("Conv(a, w)", (4, 3, 1, 1), 4),
    "Conv, grouped": ("Conv<group=3>(a, w)", (6, 1, 1, 1), 6),
    "ConvTranspose": ("ConvTranspose(a, w)", (3, 4, 1, 1), 4),
}


@pytest.mark.parametrize("name", HALF_LAYERS)
def test_skips_weights_that_float16_cannot_hold(name: str) -> None:
    """One input channel is scaled into the subnormals: the weights of the others stay large."""
    layer, shape, out = HALF_LAYERS[name]
    text = f"g (float16[N,3,8,6] x) => (float16[N,{out},8,6] y) {{ a = Mul(x, k) y = {layer} }}"
    values = {"w": weight(*shape, dtype="float16"), "k": np.full((3, 1, 1), 0.5, np.float16)}
    assert_fuses(model_from(text, values), FOLD, [name.split(",")[0]], rtol=2e-3)
    values["k"] = np.float16([1, 1e-6, 1]).reshape(3, 1, 1)
    assert_skips(model_from(text, values), FOLD, "too small for float16")


def _scalars(constants: dict[str, float]) -> dict[str, np.ndarray]:
    return {name: np.float32([value]) for name, value in constants.items()}


# what stands in front of the Conv, its constants, the shift that would be folded
CANCELS = {
    "years": ("Sub(x, m) a = Div(c, s)", {"m": 2015, "s": 5}, "403"),
    "pressure": ("Sub(x, m) a = Div(c, s)", {"m": 1013.25, "s": 0.5}, "2026.5"),
    "a Mul": ("Sub(x, m) a = Mul(c, s)", {"m": 20, "s": 100}, "2000"),
    "scaled first": ("Mul(x, s) a = Add(c, m)", {"m": -403, "s": 0.2}, "403"),
    "only the mean": ("Sub(x, m) a = Mul(c, s)", {"m": 101325, "s": 1}, "101325"),
    "three": ("Div(x, m) d = Sub(c, s) a = Div(d, r)", {"m": 1000, "s": 1, "r": 0.01}, "100"),
}


def chain(text: str, constants: dict[str, float]) -> Model:
    text = f"g (float[N,3,8,6] x) => (float[N,4,6,5] y) {{ c = {text} y = Conv(a, w, b) }}"
    values = {"w": weight(4, 3, 3, 2), "b": weight(4, seed=9), **_scalars(constants)}
    return model_from(text, values)


@pytest.mark.parametrize("name", CANCELS)
def test_skips_what_would_cancel(name: str) -> None:
    text, constants, shift = CANCELS[name]
    assert_skips(chain(text, constants), FOLD, rf"a shift of {shift}, more than \d+, would cancel")


def test_skips_a_batchnorm_of_one_channel_far_from_zero() -> None:
    values = {**batchnorm(3), "mean": np.float32([0, 500, 0]), "var": np.ones(3, np.float32)}
    assert_skips(conv(BN, **values), FOLD, "more than 64, would cancel in the sums of Conv: Batch")


# preprocessing of images
FOLDS = {
    "ImageNet, 0..1": ("Sub(x, m) a = Div(c, s)", {"m": 0.485, "s": 0.225}),
    "ImageNet, 0..255": ("Sub(x, m) a = Div(c, s)", {"m": 123.675, "s": 57.375}),
    "ImageNet, three": ("Div(x, m) d = Sub(c, s) a = Div(d, r)", {"m": 255, "s": 0.5, "r": 0.2}),
    "-1..1": ("Div(x, m) a = Sub(c, s)", {"m": 127.5, "s": 1}),
    "a mean": ("Sub(x, m) a = Mul(c, s)", {"m": 123.68, "s": 1}),
    "0..1 to 0..255 less a mean": ("Mul(x, m) a = Sub(c, s)", {"m": 255, "s": 123.68}),
}


@pytest.mark.parametrize("name", FOLDS)
def test_images_fold(name: str) -> None:
    assert_fuses(chain(*FOLDS[name]), FOLD, ["Conv"])


def test_a_scale_folds_past_a_shift_that_stays() -> None:
    """The Conv pads with zeros, so that the mean is never folded: the Div may be."""
    text = """
    g (float[N,3,8,6] x) => (float[N,4,8,6] y) {
        c = Sub(x, m)  a = Div(c, s)  y = Conv<pads=[1,1,1,1]>(a, w)
    }
    """
    made = model_from(text, {"w": weight(4, 3, 3, 3), **_scalars({"m": 2015, "s": 5})})
    assert_fuses(made, FOLD, ["Sub", "Conv"])
