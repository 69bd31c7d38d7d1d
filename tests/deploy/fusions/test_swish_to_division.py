"""swish_to_division: the same to float32's rounding, whatever goes in, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, run

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.fusions.swish_to_division import FORM

NAME = "swish_to_division"
WRITTEN_OUT = "s = Sigmoid(x) y = Mul(x, s)"
# the limits, four steps of Horner, five squarings, 1 + and the division
DIVISION = ["Max", "Min", *["Mul", "Add"] * 4, *["Mul"] * 5, "Add", "Div"]


def model(body: str, *, dtype: str = "float", opset: int = 17, shape: str = "N,4,6,7") -> Model:
    text = f"g ({dtype}[{shape}] x) => ({dtype}[{shape}] y) {{ {body} }}"
    return model_from(text, opset=opset, ir=10)


def computed(x: np.ndarray) -> np.ndarray:
    """What the fused model makes of the values."""
    fused = fuse(model(WRITTEN_OUT, shape="N"), [NAME])
    assert "Sigmoid" not in ops(fused)
    return run(fused, {"x": x.astype(np.float32)})["y"].astype(np.float64)


def largest_error() -> float:
    """Against x * sigmoid(x) in float64 over ±60, relative where that is above 1."""
    x = np.linspace(-60, 60, 600_001).astype(np.float32).astype(np.float64)
    exact = x / (1 + np.exp(-x))
    return float((np.abs(computed(x) - exact) / np.maximum(1, exact)).max())


@pytest.mark.parametrize("body", [WRITTEN_OUT, "s = Sigmoid(x) y = Mul(s, x)"])
def test_both_orders_fuse(body: str) -> None:
    assert_fuses(model(body), NAME, DIVISION, reason=r"swish as x / \(1 \+ p\^32\), .* 9e-07 off")


def test_the_operator_fuses() -> None:
    body = "a = Neg(x) b = Swish(a) y = Neg(b)"
    assert_fuses(model(body, opset=24), NAME, ["Neg", *DIVISION, "Neg"])


def test_the_error_bound_holds_and_is_tight() -> None:
    assert 0.9 * FORM.error < largest_error() <= FORM.error


def test_far_out_it_is_the_value_or_nothing() -> None:
    x = np.array([18.0, 25.0, 1e4, 3e38, np.inf])
    np.testing.assert_array_equal(computed(x), x.astype(np.float32))
    below = computed(-x)
    assert (below <= 0).all()
    assert (below > -5e-7).all()
    assert computed(np.zeros(1)) == 0


def test_a_nan_stays_one() -> None:
    assert np.isnan(computed(np.array([1.0, np.nan]))).tolist() == [False, True]


def test_a_sigmoid_that_others_read_stays_for_them() -> None:
    text = "g (float[N,4] x) => (float[N,4] y, float[N,4] z) "
    fused = fuse(model_from(text + "{ s = Sigmoid(x) y = Mul(x, s) z = Neg(s) }"), [NAME])
    assert sorted(ops(fused)) == sorted([*DIVISION, "Sigmoid", "Neg"])


def test_skips_another_alpha() -> None:
    reason = r"alpha = 1.702: the division is fitted to x \* sigmoid\(x\)"
    assert_skips(model("y = Swish<alpha=1.702>(x)", opset=24), NAME, reason)


@pytest.mark.parametrize("dtype, name", [("float16", "float16"), ("double", "float64")])
def test_skips_other_types(dtype: str, name: str) -> None:
    reason = f"the division is for float32, and this is {name}"
    assert_skips(model(WRITTEN_OUT, dtype=dtype), NAME, reason)


def test_skips_one_value_per_channel() -> None:
    reason = "one value per channel: the division costs more"
    assert_skips(model(WRITTEN_OUT, shape="N,4,1,1"), NAME, reason)


@pytest.mark.parametrize(
    "body",
    ["n = Neg(x) s = Sigmoid(n) y = Mul(x, s)", "s = Tanh(x) y = Mul(x, s)", "y = Mul(x, x)"],
)
def test_other_products_are_left_alone(body: str) -> None:
    fused = fuse(model(body), [NAME])
    assert (ops(fused), fused.decisions) == (ops(model(body)), ())
