"""fold_scale_matmul: which scales disappear into the weights, and why the others don't."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse

FOLD = "fold_scale_matmul"
SCALES = ["Mul(m, k)", "Mul(k, m)", "Div(m, k)"]


def model(
    scale: str, *shape: int, dims: str = "N,3,7", out: str = "N,3,5", **more: np.ndarray
) -> Model:
    text = f"g (float[{dims}] x) => (float[{out}] y) {{ m = MatMul(x, w) y = {scale} }}"
    return model_from(text, {"w": weight(7, 5), "k": abs(weight(*shape)) + 0.5, **more})


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5), (1, 1, 5)])
@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_per_column(scale: str, shape: tuple[int, ...]) -> None:
    fused = assert_fuses(model(scale, *shape), FOLD, ["MatMul"], reason="folded into MatMul")
    assert [d.bytes_saved for d in fused.decisions] == [2 * 4 * 3 * 5]


@pytest.mark.parametrize(("dims", "out"), [("N,7", "N,5"), ("N,2,3,7", "N,2,3,5"), ("7", "5")])
def test_any_rank(dims: str, out: str) -> None:
    assert_fuses(model("Mul(m, k)", 5, dims=dims, out=out), FOLD, ["MatMul"])


def test_weights_per_batch() -> None:
    made = model("Mul(m, k)", 5, dims="2,3,7", out="2,3,5", w=weight(2, 7, 5))
    assert_fuses(made, FOLD, ["MatMul"])


@pytest.mark.parametrize("bias", [(), (1,), (5,), (1, 5), (3, 5), (3, 1)])
@pytest.mark.parametrize("add", ["Add(m, b)", "Add(b, m)"])
def test_a_bias_between_is_scaled_too(add: str, bias: tuple[int, ...]) -> None:
    text = f"g (float[N,3,7] x) => (float[N,3,5] y) {{ m = MatMul(x, w) a = {add} y = Div(a, k) }}"
    made = model_from(
        text, {"w": weight(7, 5), "b": weight(*bias, seed=1), "k": abs(weight(5)) + 0.5}
    )
    assert_fuses(made, FOLD, ["MatMul", "Add"])


@pytest.mark.parametrize("scale", ["Div(a, k)", "Mul(k, a)"])
def test_a_scalar_bias_and_a_scalar_scale(scale: str) -> None:
    text = (
        f"g (float[N,3,7] x) => (float[N,3,5] y) {{ m = MatMul(x, w) a = Add(m, b) y = {scale} }}"
    )
    made = model_from(text, {"w": weight(7, 5), "b": np.float32(0.5), "k": np.float32(1.5)})
    assert_fuses(made, FOLD, ["MatMul", "Add"])


def test_a_shared_weight_is_not_corrupted() -> None:
    text = """
    g (float[N,7] x) => (float[N,5] y, float[N,5] z) {
        m = MatMul(x, w)  y = Mul(m, k)  z = MatMul(x, w)
    }
    """
    assert_fuses(model_from(text, {"w": weight(7, 5), "k": weight(5)}), FOLD, ["MatMul", "MatMul"])


@pytest.mark.parametrize(
    "text",
    [
        "r = Relu(x) y = Mul(r, k)",
        "m = MatMul(x, w) y = Add(m, k)",
        "m = MatMul(x, w) y = Mul(m, m)",
        "m = MatMul(x, w) a = Add(m, m) y = Mul(a, k)",
    ],
)
def test_what_is_no_scale_of_a_product_is_none(text: str) -> None:
    values = {"w": weight(5, 5), "k": weight(5)}
    used = {n: v for n, v in values.items() if f" {n})" in text}
    made = model_from(f"g (float[N,5] x) => (float[N,5] y) {{ {text} }}", used)
    fused = fuse(made, [FOLD])
    assert (ops(fused), fused.decisions) == (ops(made), ())


# ---- what stays, and why


@pytest.mark.parametrize("shape", [(3, 1), (3, 5), (1, 1, 1, 5)])
def test_skips_a_scale_that_is_not_one_per_column(shape: tuple[int, ...]) -> None:
    made = model("Mul(m, k)", *shape, out="1,N,3,5" if len(shape) == 4 else "N,3,5")
    assert_skips(made, FOLD, "the constant of Mul, .* is not one per channel")


def test_skips_weights_computed_at_run_time() -> None:
    text = "g (float[N,7] x, float[7,5] w) => (float[N,5] y) { m = MatMul(x, w) y = Mul(m, k) }"
    assert_skips(model_from(text, {"k": weight(1)}), FOLD, "weights of MatMul are computed at run")


def test_skips_a_vector() -> None:
    text = "g (float[N,7] x) => (float[N] y) { m = MatMul(x, w) y = Mul(m, k) }"
    made = model_from(text, {"w": weight(7), "k": weight(1)})
    assert_skips(made, FOLD, r"the weights of MatMul, \[7\], have no columns")


def test_skips_integers() -> None:
    text = "g (int32[N,7] x) => (int32[N,5] y) { m = MatMul(x, w) y = Div(m, k) }"
    values = {"w": np.arange(35).reshape(7, 5), "k": np.array([2])}
    made = model_from(text, {n: v.astype(np.int32) for n, v in values.items()})
    assert_skips(made, FOLD, "MatMul computes in int32")


def test_skips_division_by_zero() -> None:
    made = model("Div(m, k)", 5, k=np.float32([1, 0, 2, 3, 4]))
    assert_skips(made, FOLD, "the constant of Div holds zeros")


def test_skips_what_would_not_be_finite() -> None:
    made = model("Mul(m, k)", 1, k=np.float32([3e38]), w=weight(7, 5) + 9)
    assert_skips(made, FOLD, "the folded weights would not be finite")
    text = "g (float[N,7] x) => (float[N,5] y) { m = MatMul(x, w) a = Add(m, b) y = Mul(a, k) }"
    values = {"w": weight(7, 5), "b": np.float32([3e38]), "k": np.float32([9])}
    assert_skips(model_from(text, values), FOLD, "the folded bias would not be finite")


def test_skips_a_product_that_others_read() -> None:
    text = (
        "g (float[N,7] x) => (float[N,5] y, float[N,5] z) "
        "{ m = MatMul(x, w) y = Mul(m, k) z = Relu(m) }"
    )
    made = model_from(text, {"w": weight(7, 5), "k": weight(1)})
    assert_skips(made, FOLD, "'m' is also read by 'Relu -> z'")


def test_skips_weights_that_float16_cannot_hold() -> None:
    text = "g (float16[N,7] x) => (float16[N,5] y) { m = MatMul(x, w) y = Mul(m, k) }"
    values = {"w": weight(7, 5, dtype="float16"), "k": np.full(5, 0.5, np.float16)}
    assert_fuses(model_from(text, values), FOLD, ["MatMul"], rtol=2e-3)
    values["k"] = np.float16([1, 1, 1e-6, 1, 1])
    assert_skips(model_from(text, values), FOLD, "too small for float16")
