"""fold_affine: which layers and constants fold, to which numbers, and why the others don't."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.fusions.fold_affine import fold_affine
from deploy.surgery.graph import to_graph
from deploy.surgery.rewrite import Skip

FOLD = "fold_affine"


def conv(affine: str, constants: dict[str, np.ndarray], *, outputs: str = "y") -> Model:
    """A Conv with bias, 3 -> 4 channels, then `affine` from c to y."""
    ends = ", ".join(f"float[N,4,6,4] {name}" for name in outputs.split())
    text = f"g (float[N,3,8,6] x) => ({ends}) {{ c = Conv(x, w, b) {affine} }}"
    return model_from(text, {"w": weight(4, 3, 3, 3), "b": weight(4, seed=9), **constants})


def batchnorm(channels: int) -> dict[str, np.ndarray]:
    return {
        "gamma": weight(channels, seed=1),
        "beta": weight(channels, seed=2),
        "mean": weight(channels, seed=3),
        "var": abs(weight(channels, seed=4)) + 0.5,
    }


def initializers(model: Model) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model.proto.graph.initializer}


# text of one affine node from c to y
BN = "y = BatchNormalization(c, gamma, beta, mean, var)"
AFFINES = {
    "Mul": "y = Mul(c, k)",
    "Mul turned": "y = Mul(k, c)",
    "Div": "y = Div(c, k)",
    "Add": "y = Add(c, k)",
    "Add turned": "y = Add(k, c)",
    "Sub": "y = Sub(c, k)",
    "Sub turned": "y = Sub(k, c)",
}
# name: operator with attributes, weights, input dims, output dims, output channels
LAYERS = {
    "plain": ("Conv(x, w, b)", (4, 3, 3, 3), "N,3,8,6", "N,4,6,4", 4),
    "no bias": ("Conv(x, w)", (4, 3, 3, 3), "N,3,8,6", "N,4,6,4", 4),
    "empty bias": ('Conv(x, w, "")', (4, 3, 3, 3), "N,3,8,6", "N,4,6,4", 4),
    "padded, strided": (
        "Conv<pads=[1,2,1,2], strides=[2,1]>(x, w, b)",
        (5, 3, 3, 3),
        "N,3,8,6",
        "N,5,4,8",
        5,
    ),
    "grouped": ("Conv<group=3>(x, w, b)", (12, 2, 3, 3), "N,6,8,6", "N,12,6,4", 12),
    "depthwise": ("Conv<group=6>(x, w, b)", (6, 1, 3, 3), "N,6,8,6", "N,6,6,4", 6),
    "1-D": ("Conv(x, w, b)", (4, 3, 5), "N,3,11", "N,4,7", 4),
    "3-D": ("Conv(x, w, b)", (4, 3, 2, 1, 3), "N,3,4,2,5", "N,4,3,2,3", 4),
    "transposed": ("ConvTranspose<strides=[2,1]>(x, w, b)", (3, 4, 2, 3), "N,3,5,4", "N,4,10,6", 4),
    "transposed, output padding": (
        "ConvTranspose<strides=[3,2], output_padding=[1,1]>(x, w)",
        (3, 4, 2, 2),
        "N,3,5,4",
        "N,4,15,9",
        4,
    ),
    "transposed, grouped": (
        "ConvTranspose<group=3>(x, w, b)",
        (6, 5, 2, 3),
        "N,6,5,4",
        "N,15,6,6",
        15,
    ),
}
GEMMS = {
    "transB=0": ("Gemm(x, w, b)", (7, 5), "N,7"),
    "transB=1": ("Gemm<transB=1>(x, w, b)", (5, 7), "N,7"),
    "transA, transB": ("Gemm<transA=1, transB=1>(x, w, b)", (5, 7), "7,N"),
    "alpha": ("Gemm<alpha=0.25>(x, w, b)", (7, 5), "N,7"),
    "alpha, beta, transB": ("Gemm<alpha=-1.5, beta=3.0, transB=1>(x, w, b)", (5, 7), "N,7"),
    "beta of nothing": ("Gemm<beta=0.0>(x, w, b)", (7, 5), "N,7"),
    "no bias": ("Gemm(x, w)", (7, 5), "N,7"),
}


def layer_model(
    layer: str, shape: tuple[int, ...], dims: tuple[str, str], channels: int, affine: str
) -> Model:
    text = f"g (float[{dims[0]}] x) => (float[{dims[1]}] y) {{ c = {layer} {affine} }}"
    spatial = (1,) * (dims[1].count(",") - 1)
    k = (abs(weight(channels, seed=8)) + 0.5).reshape(channels, *spatial)
    values = {"w": weight(*shape), "b": weight(channels, seed=9), "k": k, **batchnorm(channels)}
    used = {n: v for n, v in values.items() if f"{n}," in f"{text},".replace(")", ",")}
    return model_from(text, used)


@pytest.mark.parametrize("affine", [*AFFINES.values(), BN], ids=[*AFFINES, "BatchNormalization"])
@pytest.mark.parametrize("layer", LAYERS)
def test_folds_into_every_convolution(layer: str, affine: str) -> None:
    text, shape, dims_in, dims_out, channels = LAYERS[layer]
    model = layer_model(text, shape, (dims_in, dims_out), channels, affine)
    assert_fuses(model, FOLD, [text.split("(")[0].split("<")[0]], reason=r"folded into Conv")


@pytest.mark.parametrize("affine", [*AFFINES.values(), BN], ids=[*AFFINES, "BatchNormalization"])
@pytest.mark.parametrize("layer", GEMMS)
def test_folds_into_every_gemm(layer: str, affine: str) -> None:
    text, shape, dims = GEMMS[layer]
    model = layer_model(text, shape, (dims, "N,5"), 5, affine)
    assert_fuses(model, FOLD, ["Gemm"], reason="folded into Gemm")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_folds_a_scalar(affine: str, shape: tuple[int, ...]) -> None:
    assert_fuses(conv(affine, {"k": np.full(shape, 1.75, np.float32)}), FOLD, ["Conv"])


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1)])
def test_folds_one_value_per_channel(shape: tuple[int, ...]) -> None:
    assert_fuses(conv("y = Mul(c, k)", {"k": weight(*shape)}), FOLD, ["Conv"])


def test_the_numbers_by_hand() -> None:
    """y = 3 (2x + 1) - 5 = 6x - 2."""
    text = (
        "g (float[N,1,2,3] x) => (float[N,1,2,3] y) "
        "{ c = Conv(x, w, b) m = Mul(c, k) y = Sub(m, l) }"
    )
    values = {"w": [[[[2.0]]]], "b": [1.0], "k": [3.0], "l": [5.0]}
    model = model_from(text, {n: np.asarray(v, np.float32) for n, v in values.items()})
    fused = assert_fuses(model, FOLD, ["Conv"])
    folded = initializers(fused)
    assert [v.tolist() for v in folded.values()] == [[[[[6.0]]]], [-2.0]]


def test_a_chain_folds_completely() -> None:
    chain = "n = BatchNormalization(c, gamma, beta, mean, var) m = Mul(n, k) y = Add(m, l)"
    constants = {**batchnorm(4), "k": weight(4, 1, 1, seed=5), "l": weight(1, seed=6)}
    fused = assert_fuses(conv(chain, constants), FOLD, ["Conv"])
    assert [d.reason for d in fused.decisions] == [
        "BatchNormalization folded into Conv",
        "Mul folded into Conv",
        "Add folded into Conv",
    ]
    assert list(initializers(fused)) == ["y/Conv_1", "y/Conv_2"]


def test_bytes_saved_are_the_map_read_and_written_again() -> None:
    fused = assert_fuses(conv("y = Mul(c, k)", {"k": weight(1)}), FOLD, ["Conv"])
    assert [d.bytes_saved for d in fused.decisions] == [2 * 4 * (4 * 6 * 4)]


def test_the_epsilon_of_batch_normalization_counts() -> None:
    affine = BN.replace("BatchNormalization", "BatchNormalization<epsilon=0.5>")
    assert_fuses(conv(affine, batchnorm(4)), FOLD, ["Conv"])


def test_a_weight_two_layers_share_is_not_corrupted() -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,4,6,4] y, float[N,4,6,4] z) {
        c = Conv(x, w, b)  y = Mul(c, k)  z = Conv(x, w, b)
    }
    """
    values = {"w": weight(4, 3, 3, 3), "b": weight(4, seed=9), "k": weight(4, 1, 1, seed=1)}
    fused = assert_fuses(model_from(text, values), FOLD, ["Conv", "Conv"])
    np.testing.assert_array_equal(initializers(fused)["w"], values["w"])
    np.testing.assert_array_equal(initializers(fused)["b"], values["b"])


def test_two_layers_that_share_a_weight_fold_differently() -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,4,6,4] y, float[N,4,6,4] z) {
        c = Conv(x, w)  y = Mul(c, k)  d = Conv(x, w)  z = Mul(d, l)
    }
    """
    values = {"w": weight(4, 3, 3, 3), "k": weight(1, seed=1), "l": weight(1, seed=2)}
    fused = assert_fuses(model_from(text, values), FOLD, ["Conv", "Conv"])
    assert set(initializers(fused)) == {"y/Conv_1", "y/Conv_2", "z/Conv_1", "z/Conv_2"}


def test_weights_from_constant_nodes_fold() -> None:
    model = conv("y = Mul(c, k)", {})
    constant = numpy_helper.from_array(weight(4, 1, 1, seed=3))
    for name, value in (("k", constant), ("w", model.proto.graph.initializer[0])):
        node = onnx.helper.make_node("Constant", [], [name], value=value)
        model.proto.graph.node.insert(0, node)
    del model.proto.graph.initializer[0]
    assert_fuses(model, FOLD, ["Conv"])


def test_a_constant_written_as_an_attribute_folds() -> None:
    assert_fuses(conv("k = Constant<value_float=1.5>() y = Mul(c, k)", {}), FOLD, ["Conv"])
    constants = "k = Constant<value_floats=[1.5,-2.0,0.25,4.0,0.5]>()"
    text = f"g (float[N,7] x) => (float[N,5] y) {{ c = Gemm(x, w) {constants} y = Mul(c, k) }}"
    assert_fuses(model_from(text, {"w": weight(7, 5)}), FOLD, ["Gemm"])


def test_float16_weights_stay_float16() -> None:
    text = "g (float16[N,3,8,6] x) => (float16[N,4,6,4] y) { c = Conv(x, w, b) y = Mul(c, k) }"
    values = {
        "w": weight(4, 3, 3, 3, dtype="float16"),
        "b": weight(4, dtype="float16"),
        "k": weight(4, 1, 1, seed=1, dtype="float16"),
    }
    fused = assert_fuses(model_from(text, values), FOLD, ["Conv"], rtol=2e-3)
    assert {v.dtype for v in initializers(fused).values()} == {np.dtype(np.float16)}


def test_float16_weights_are_scaled_in_float64_and_rounded_once() -> None:
    text = "g (float16[N,1,2,3] x) => (float16[N,1,2,3] y) { c = Conv(x, w, b) y = Mul(c, k) }"
    w, b, k = np.float16(0.1), np.float16(100.1), np.float16(0.3333)
    values = {"w": np.full((1, 1, 1, 1), w), "b": np.full(1, b), "k": np.full(1, k)}
    folded = initializers(fuse(model_from(text, values), [FOLD]))
    assert folded["y/Conv_1"].item() == np.float16(np.float64(w) * np.float64(k))
    assert folded["y/Conv_2"].item() == np.float16(np.float64(b) * np.float64(k))


def test_a_convolution_over_a_free_spatial_size_folds() -> None:
    text = "g (float[N,3,H,W] x) => (float[N,4,P,Q] y) { c = Conv(x, w) y = Mul(c, k) }"
    model = model_from(text, {"w": weight(4, 3, 3, 3), "k": weight(4, 1, 1)})
    assert ops(fuse(model, [FOLD])) == ["Conv"]


# ---- what doesn't fold, and why


@pytest.mark.parametrize(
    ("affine", "shape"),
    [
        ("y = Mul(c, k)", (6, 4)),
        ("y = Mul(c, k)", (4,)),
        ("y = Mul(c, k)", (6, 1)),
        ("y = Add(k, c)", (4, 6, 4)),
        ("y = Sub(c, k)", (1, 4, 6, 1)),
    ],
)
def test_skips_a_constant_that_is_not_one_per_channel(affine: str, shape: tuple[int, ...]) -> None:
    model = conv(affine, {"k": weight(*shape)})
    assert_skips(model, FOLD, rf"the constant of \w+, {list(shape)!r}".replace("[", r"\["))


def test_skips_a_constant_per_sample() -> None:
    text = "g (float[2,3,8,6] x) => (float[2,4,6,4] y) { c = Conv(x, w) y = Mul(c, k) }"
    model = model_from(text, {"w": weight(4, 3, 3, 3), "k": weight(2, 1, 1, 1)})
    assert_skips(model, FOLD, r"constant of Mul, \[2, 1, 1, 1\], is not one per channel")


def test_skips_a_constant_that_widens_one_channel() -> None:
    text = "g (float[N,3,8,6] x) => (float[N,5,6,4] y) { c = Conv(x, w) y = Mul(c, k) }"
    model = model_from(text, {"w": weight(1, 3, 3, 3), "k": weight(5, 1, 1)})
    assert_skips(model, FOLD, r"constant of Mul, \[5, 1, 1\], is not one per channel")


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (1, 4, 1, 1, 1)])
def test_skips_a_constant_that_raises_the_rank(shape: tuple[int, ...]) -> None:
    text = "g (float[4,3,8,6] x) => (float[1,4,4,6,4] y) { c = Conv(x, w) y = Mul(c, k) }"
    model = model_from(text, {"w": weight(4, 3, 3, 3), "k": weight(*shape)})
    assert_skips(model, FOLD, "constant of Mul, .* is not one per channel")


def test_skips_division_by_zero() -> None:
    k = np.array([1, 0, 2, 3], np.float32).reshape(4, 1, 1)
    assert_skips(conv("y = Div(c, k)", {"k": k}), FOLD, "the constant of Div holds zeros")


def test_a_constant_divided_by_the_layer_is_not_affine() -> None:
    fused = fuse(conv("y = Div(k, c)", {"k": weight(1)}), [FOLD])
    assert (ops(fused), fused.decisions) == (["Conv", "Div"], ())


def test_two_computed_inputs_are_not_affine() -> None:
    fused = fuse(conv("y = Mul(c, c)", {}), [FOLD])
    assert (ops(fused), fused.decisions) == (["Conv", "Mul"], ())


def test_no_layer_in_front_is_none() -> None:
    model = model_from(
        "g (float[N,3] x) => (float[N,3] y) { r = Relu(x) y = Mul(r, k) }", {"k": weight(1)}
    )
    fused = fuse(model, [FOLD])
    assert (ops(fused), fused.decisions) == (["Relu", "Mul"], ())


def test_skips_a_layer_whose_output_is_also_the_models() -> None:
    model = conv("y = Mul(c, k)", {"k": weight(1)}, outputs="y c")
    assert_skips(model, FOLD, "'c' is an output of the model")


def test_skips_a_layer_that_is_read_twice() -> None:
    model = conv("y = Mul(c, k) z = Neg(c)", {"k": weight(1)}, outputs="y z")
    assert_skips(model, FOLD, "'c' is also read by 'Neg -> z'")


def test_skips_weights_computed_at_run_time() -> None:
    text = (
        "g (float[N,3,8,6] x, float[4,3,3,3] w) => (float[N,4,6,4] y) "
        "{ c = Conv(x, w) y = Mul(c, k) }"
    )
    assert_skips(
        model_from(text, {"k": weight(1)}), FOLD, "the weights of Conv are computed at run time"
    )


def test_skips_a_bias_computed_at_run_time() -> None:
    text = (
        "g (float[N,3,8,6] x, float[4] b) => (float[N,4,6,4] y) { c = Conv(x, w, b) y = Mul(c, k) }"
    )
    model = model_from(text, {"w": weight(4, 3, 3, 3), "k": weight(1)})
    assert_skips(model, FOLD, "the bias of Conv is computed at run time")


@pytest.mark.parametrize("shape", [(4, 1), (4, 4), (2, 4)])
def test_skips_a_bias_per_row(shape: tuple[int, ...]) -> None:
    rows = 2 if shape == (2, 4) else 4
    text = f"g (float[{rows},7] x) => (float[{rows},4] y) {{ c = Gemm(x, w, b) y = Mul(c, k) }}"
    model = model_from(text, {"w": weight(7, 4), "b": weight(*shape), "k": weight(1)})
    assert_skips(model, FOLD, r"the bias of Gemm, \[\d, \d\], is not one per channel")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 5)])
def test_a_bias_that_broadcasts_over_rows_folds(shape: tuple[int, ...]) -> None:
    text = "g (float[N,7] x) => (float[N,5] y) { c = Gemm(x, w, b) y = Mul(c, k) }"
    model = model_from(text, {"w": weight(7, 5), "b": weight(*shape), "k": weight(5)})
    assert_fuses(model, FOLD, ["Gemm"])


def test_skips_statistics_computed_at_run_time() -> None:
    text = f"g (float[N,3,8,6] x, float[4] mean) => (float[N,4,6,4] y) {{ c = Conv(x, w) {BN} }}"
    constants = {n: v for n, v in batchnorm(4).items() if n != "mean"}
    model = model_from(text, {"w": weight(4, 3, 3, 3), **constants})
    assert_skips(model, FOLD, "the statistics of BatchNormalization are computed at run time")


def test_skips_training_mode() -> None:
    affine = "y, m2, v2 = BatchNormalization<training_mode=1>(c, gamma, beta, mean, var)"
    assert_skips(conv(affine, batchnorm(4)), FOLD, r"training mode; export the model with eval\(\)")


def test_training_mode_counts_even_where_only_the_data_is_asked_for() -> None:
    """ONNX wants three outputs then, so this one is shown to the rule alone."""
    model = conv(BN.replace("(c", "<training_mode=1>(c"), batchnorm(4))
    _, node = to_graph(model).nodes
    found = fold_affine(node)
    assert isinstance(found, Skip)
    assert "training mode" in found.reason


def test_skips_training_mode_as_it_was_before_opset_14() -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,4,6,4] y) {
        c = Conv(x, w)  y, m2, v2, m3, v3 = BatchNormalization(c, gamma, beta, mean, var)
    }
    """
    model = model_from(text, {"w": weight(4, 3, 3, 3), **batchnorm(4)}, opset=13)
    assert_skips(model, FOLD, "training mode")


@pytest.mark.parametrize(
    ("affine", "constants"),
    [
        ("y = Mul(c, k)", {"k": np.float32([3e38])}),
        ("y = Add(c, k)", {"k": np.float32([np.inf])}),
        ("y = Div(c, k)", {"k": np.float32([1e-45])}),
        (BN, {**batchnorm(4), "var": np.float32([-1, 1, 1, 1])}),
        (BN.replace("(c", "<epsilon=0.0>(c"), {**batchnorm(4), "var": np.float32([0, 1, 1, 1])}),
    ],
    ids=["overflow", "inf", "tiny divisor", "negative variance", "zero variance"],
)
def test_skips_what_would_not_be_finite(affine: str, constants: dict[str, np.ndarray]) -> None:
    model = conv(affine, constants)
    model.proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight(4, 3, 3, 3) + 9, "w"))
    assert_skips(model, FOLD, "the folded weights would not be finite")


def test_skips_weights_that_overflow_though_there_is_no_bias_to() -> None:
    text = "g (float[N,3,8,6] x) => (float[N,4,6,4] y) { c = Conv(x, w) y = Mul(c, k) }"
    model = model_from(text, {"w": weight(4, 3, 3, 3) + 9, "k": np.float32([3e38])})
    assert_skips(model, FOLD, "the folded weights would not be finite")


def test_skips_integers_whose_scale_would_be_rounded() -> None:
    text = "g (int64[N,7] x) => (int64[N,5] y) { c = Gemm(x, w) y = Div(c, k) }"
    model = model_from(text, {"w": np.arange(35).reshape(7, 5), "k": np.array([2])})
    assert_skips(model, FOLD, "Gemm computes in int64")


def test_a_layer_read_inside_a_branch_stays() -> None:
    text = """
    g (float[N,3,8,6] x, bool q) => (float[N,4,6,4] y, float[N,4,6,4] z) {
        c = Conv(x, w)
        y = Mul(c, k)
        z = If (q) <
            then_branch = t () => (float[N,4,6,4] u) { u = Relu(c) },
            else_branch = e () => (float[N,4,6,4] v) { v = Neg(c) }
        >
    }
    """
    model = model_from(text, {"w": weight(4, 3, 3, 3), "k": weight(1)})
    assert_skips(model, FOLD, "'c' is also read by '(Relu -> u|Neg -> v)'")


HALF_LAYERS = {
    "Conv": ("Conv(x, w)", (4, 3, 1, 1), 4),
    "ConvTranspose": ("ConvTranspose<group=3>(x, w)", (3, 2, 1, 1), 6),
}


@pytest.mark.parametrize("name", HALF_LAYERS)
def test_skips_weights_that_float16_cannot_hold(name: str) -> None:
    layer, shape, out = HALF_LAYERS[name]
    text = f"g (float16[N,3,8,6] x) => (float16[N,{out},8,6] y) {{ c = {layer} y = Mul(c, k) }}"
    scale = np.ones((out, 1, 1), np.float16)
    values = {"w": weight(*shape, dtype="float16"), "k": scale * np.float16(0.5)}
    assert_fuses(model_from(text, values), FOLD, [name], rtol=2e-3)
    scale[1] = 1e-6
    assert_skips(model_from(text, {**values, "k": scale}), FOLD, "too small for float16")


def test_skips_a_gemm_that_float16_cannot_hold() -> None:
    text = "g (float16[N,7] x) => (float16[N,5] y) { c = Gemm(x, w) y = Div(c, k) }"
    values = {"w": weight(7, 5, dtype="float16") / 100, "k": np.float16([1, 1, 1, 1, 5e4])}
    assert_skips(model_from(text, values), FOLD, "too small for float16")


def test_a_channel_scaled_by_zero_folds_in_float16() -> None:
    text = "g (float16[N,3,8,6] x) => (float16[N,4,8,6] y) { c = Conv(x, w) y = Mul(c, k) }"
    values = {"w": weight(4, 3, 1, 1, dtype="float16"), "k": np.zeros((4, 1, 1), np.float16)}
    assert_fuses(model_from(text, values), FOLD, ["Conv"])


def test_a_channel_that_no_input_brings_to_life_folds() -> None:
    """As in PP-OCRv4: subnormal float32 weights, which lose digits that nothing depends on."""
    values = {"w": weight(4, 3, 1, 1), "k": np.ones((4, 1, 1), np.float32)}
    values["w"][1] *= 1e-25
    values["k"][1] = 3e-15
    text = "g (float[N,3,8,6] x) => (float[N,4,8,6] y) { c = Conv(x, w) y = Mul(c, k) }"
    assert_fuses(model_from(text, values), FOLD, ["Conv"])


def far(channels: int, mean: float, **changed: np.ndarray) -> dict[str, np.ndarray]:
    """A BatchNormalization of spread 1 around 0 whose second channel has that mean."""
    ones = np.ones(channels, np.float32)
    means = np.where(np.arange(channels) == 1, mean, 0).astype(np.float32)
    return {"gamma": ones, "beta": 0 * ones, "mean": means, "var": ones, **changed}


def test_skips_a_batchnorm_that_leaves_little_of_what_it_subtracts() -> None:
    """The Conv's bias is as far away: folded, other digits are lost than were before."""
    values = far(4, 1e5)
    model = conv(BN, {**values, "b": values["mean"]})
    reason = r"subtracts 9999\d(\.\d+)? and leaves about 1: the digits that this cancels"
    assert_skips(model, FOLD, reason)


@pytest.mark.parametrize(
    ("mean", "changed"),
    [
        (160.0, {}),  # 168 roundings of 2^-24 are 1e-5
        (1e5, {"beta": np.float32([1, -1e5, 1, 1])}),  # what is left is as large
        (1e5, {"var": np.float32([1, 1e9, 1, 1])}),  # the spread of the data is
    ],
)
def test_a_batchnorm_far_from_zero_folds_where_no_digits_go(
    mean: float, changed: dict[str, np.ndarray]
) -> None:
    assert_fuses(conv(BN, far(4, mean, **changed)), FOLD, ["Conv"])


def test_a_pruned_channel_is_no_reason() -> None:
    """Its weights are 0, so that the mean is its bias and nothing is rounded."""
    weights = weight(4, 3, 3, 3)
    weights[1] = 0
    values = far(4, 1e5, var=np.float32([1, 0, 1, 1]))
    text = f"g (float[N,3,8,6] x) => (float[N,4,6,4] y) {{ c = Conv(x, w, b) {BN} }}"
    model = model_from(text, {"w": weights, **values, "b": values["mean"]})
    assert_fuses(model, FOLD, ["Conv"])
