"""matmul_add_to_gemm: which pairs become a Gemm, and why the others don't."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse

GEMM = "matmul_add_to_gemm"


def model(add: str, *bias: int, dims: str = "N,7", out: str = "N,5") -> Model:
    text = f"g (float[{dims}] x) => (float[{out}] y) {{ m = MatMul(x, w) y = {add} }}"
    return model_from(text, {"w": weight(7, 5), "b": weight(*bias, seed=1)})


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1,), (1, 1), ()])
@pytest.mark.parametrize("add", ["Add(m, b)", "Add(b, m)"])
def test_a_matrix_and_its_bias(add: str, shape: tuple[int, ...]) -> None:
    fused = assert_fuses(model(add, *shape), GEMM, ["Gemm"], reason="turned into Gemm")
    assert "w" in {i.name for i in fused.proto.graph.initializer}, "a shared weight stays one"
    assert [d.bytes_saved for d in fused.decisions] == [2 * 4 * 5]


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_other_float_types(dtype: str) -> None:
    kind = {"double": "float64"}.get(dtype, dtype)
    text = f"g ({dtype}[N,7] x) => ({dtype}[N,5] y) {{ m = MatMul(x, w) y = Add(m, b) }}"
    made = model_from(text, {"w": weight(7, 5, dtype=kind), "b": weight(5, dtype=kind)})
    assert_fuses(made, GEMM, ["Gemm"], rtol=5e-3 if dtype == "float16" else 1e-12)


@pytest.mark.parametrize(("dims", "out"), [("N,3,7", "N,3,5"), ("2,N,3,7", "2,N,3,5"), ("7", "5")])
def test_other_ranks_are_none(dims: str, out: str) -> None:
    fused = fuse(model("Add(m, b)", 5, dims=dims, out=out), [GEMM])
    assert (ops(fused), fused.decisions) == (["MatMul", "Add"], ())


def test_weights_per_batch_are_none() -> None:
    text = "g (float[3,7] x) => (float[2,3,5] y) { m = MatMul(x, w) y = Add(m, b) }"
    fused = fuse(model_from(text, {"w": weight(2, 7, 5), "b": weight(5)}), [GEMM])
    assert (ops(fused), fused.decisions) == (["MatMul", "Add"], ())


@pytest.mark.parametrize(
    "text",
    [
        "m = MatMul(x, w) y = Add(m, m)",
        "m = MatMul(x, w) r = Relu(m) y = Add(m, r)",
        "m = MatMul(x, w) y = Sub(m, b)",
        "m = MatMul(x, w) y = Mul(m, b)",
        "m = MatMul(x, w) r = Relu(m) y = Add(r, b)",
    ],
)
def test_other_arithmetic_is_none(text: str) -> None:
    values = {"w": weight(7, 5), "b": weight(5)}
    used = {n: v for n, v in values.items() if f" {n})" in text}
    made = model_from(f"g (float[N,7] x) => (float[N,5] y) {{ {text} }}", used)
    fused = fuse(made, [GEMM])
    assert (ops(fused), fused.decisions) == (ops(made), ())


# ---- what stays, and why


@pytest.mark.parametrize(("shape", "dims"), [((3, 1), "3,7"), ((3, 5), "3,7"), ((1, 1, 5), "3,7")])
def test_skips_a_bias_that_is_not_one_per_column(shape: tuple[int, ...], dims: str) -> None:
    out = "1,3,5" if len(shape) == 3 else "3,5"
    made = model("Add(m, b)", *shape, dims=dims, out=out)
    assert_skips(made, GEMM, "the constant of Add, .* is not one per column")


def test_skips_a_bias_per_row_as_long_as_the_columns() -> None:
    made = model("Add(m, b)", 5, 1, dims="5,7", out="5,5")
    assert_skips(made, GEMM, r"the constant of Add, \[5, 1\], is not one per column")


def test_skips_a_bias_that_makes_the_columns() -> None:
    text = "g (float[N,7] x) => (float[N,5] y) { m = MatMul(x, w) y = Add(m, b) }"
    made = model_from(text, {"w": weight(7, 1), "b": weight(5)})
    assert_skips(made, GEMM, "is not one per column")


def test_skips_an_unknown_rank() -> None:
    text = (
        "g (float[N,7] x, int64[R] s) => (float[N,5] y) "
        "{ r = Reshape(x, s) m = MatMul(r, w) y = Add(m, b) }"
    )
    assert_skips(
        model_from(text, {"w": weight(7, 5), "b": weight(5)}), GEMM, "rank of MatMul's input"
    )


def test_skips_weights_computed_at_run_time() -> None:
    text = "g (float[N,7] x, float[7,5] w) => (float[N,5] y) { m = MatMul(x, w) y = Add(m, b) }"
    assert_skips(model_from(text, {"b": weight(5)}), GEMM, "weights of MatMul are computed at run")


def test_skips_integers() -> None:
    text = "g (int32[N,7] x) => (int32[N,5] y) { m = MatMul(x, w) y = Add(m, b) }"
    values = {"w": np.arange(35).reshape(7, 5), "b": np.arange(5)}
    made = model_from(text, {n: v.astype(np.int32) for n, v in values.items()})
    assert_skips(made, GEMM, "MatMul computes in int32")


def test_skips_a_product_that_others_read() -> None:
    text = (
        "g (float[N,7] x) => (float[N,5] y, float[N,5] z) "
        "{ m = MatMul(x, w) y = Add(m, b) z = Relu(m) }"
    )
    made = model_from(text, {"w": weight(7, 5), "b": weight(5)})
    assert_skips(made, GEMM, "'m' is also read by 'Relu -> z'")
