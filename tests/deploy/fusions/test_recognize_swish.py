"""recognize_swish: x * sigmoid(alpha * x) in its spellings, and what only looks like it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import assert_fuses, assert_same_numbers, assert_skips, model_from, ops, run, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.surgery.channels import works_per_channel
from deploy.surgery.graph import to_graph

NAME = "recognize_swish"
CONSTANTS = {
    "one": np.float32(1),
    "two": np.float32(2),
    "alpha": np.float32([1.702]),
    "minus": np.float32(-1),
    "inverse": np.float32(1 / 1.702),
}
# body -> alpha
SPELLINGS = {
    "s = Sigmoid(x) y = Mul(x, s)": 1.0,
    "s = Sigmoid(x) y = Mul(s, x)": 1.0,
    "a = Mul(x, alpha) s = Sigmoid(a) y = Mul(x, s)": 1.702,
    "a = Mul(alpha, x) s = Sigmoid(a) y = Mul(s, x)": 1.702,
    "a = Div(x, inverse) s = Sigmoid(a) y = Mul(x, s)": 1.702,
    "n = Neg(x) s = Sigmoid(n) y = Mul(x, s)": -1.0,
    "n = Neg(x) e = Exp(n) a = Add(e, one) y = Div(x, a)": 1.0,
    "n = Mul(x, minus) e = Exp(n) a = Add(one, e) y = Div(x, a)": 1.0,
}


def model(body: str, *, dtype: str = "float", opset: int = 17, outputs: str = "y") -> Model:
    kind = {"float": "float32", "float16": "float16", "double": "float64"}[dtype]
    ends = ", ".join(f"{dtype}[N,4,7] {name}" for name in outputs.split())
    used = {n: v.astype(kind) for n, v in CONSTANTS.items() if f"{n}," in body or f"{n})" in body}
    return model_from(f"g ({dtype}[N,4,7] x) => ({ends}) {{ {body} }}", used, opset=opset, ir=10)


def alphas(fused: Model) -> list[float]:
    return [n.attribute[0].f for n in fused.proto.graph.node if n.op_type == "Swish"]


@pytest.mark.parametrize("body", SPELLINGS)
def test_every_spelling_fuses(body: str) -> None:
    fused = assert_fuses(model(body), NAME, ["Swish"], reason="is Swish; the model's opset raised")
    assert fused.opset == 24
    assert alphas(fused) == pytest.approx([SPELLINGS[body]], rel=1e-6)


def test_bytes_saved_are_all_but_one_reading_and_writing() -> None:
    fused = assert_fuses(model("s = Sigmoid(x) y = Mul(x, s)"), NAME, ["Swish"])
    assert [d.bytes_saved for d in fused.decisions] == [(5 - 2) * 4 * (4 * 7)]


def test_float16_fuses() -> None:
    assert_fuses(model("s = Sigmoid(x) y = Mul(x, s)", dtype="float16"), NAME, ["Swish"], rtol=2e-3)


def test_far_out_the_exponential_is_infinite_and_the_swish_zero() -> None:
    body = "n = Neg(x) e = Exp(n) a = Add(e, one) y = Div(x, a)"
    before = model(body)
    x = np.full((1, 4, 7), -120, np.float32)
    with np.errstate(over="ignore"):
        got = [run(m, {"x": x})["y"] for m in (before, fuse(before, [NAME]))]
    assert np.abs(got).max() < 1e-36


def test_x_may_itself_be_a_scaled_value() -> None:
    body = "x2 = Mul(x, two) s = Sigmoid(x2) y = Mul(x2, s)"
    fused = assert_fuses(model(body), NAME, ["Mul", "Swish"])
    assert alphas(fused) == [1.0]


def test_a_sigmoid_that_others_read_stays_for_them() -> None:
    body = "s = Sigmoid(x) y = Mul(x, s) z = Neg(s)"
    fused = fuse(model(body, outputs="y z"), [NAME])
    assert sorted(ops(fused)) == ["Neg", "Sigmoid", "Swish"]
    assert_same_numbers(model(body, outputs="y z"), fused)
    # Sigmoid still reads and writes its map: only the product's reading of it is saved
    assert [d.bytes_saved for d in fused.decisions] == [4 * (4 * 7)]


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, one) s = Sigmoid(a) y = Mul(x, s)",
        "a = Mul(x, x) s = Sigmoid(a) y = Mul(x, s)",
    ],
)
def test_skips_the_sigmoid_of_something_else(body: str) -> None:
    assert_skips(model(body), NAME, "only where z is a multiple of x itself")


def test_skips_float64() -> None:
    body = "s = Sigmoid(x) y = Mul(x, s)"
    assert_skips(model(body, dtype="double"), NAME, "in float32 and float16, not float64")


def test_skips_an_operator_that_would_change() -> None:
    body = "s = Sigmoid(x) z = Mul(x, s) y = Hardmax<axis=1>(z)"
    reason = "Swish needs opset 24; 'Hardmax -> y' would change its meaning at opset 13"
    assert_skips(model(body, opset=11), NAME, reason)


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 25, reason="this onnx knows no later opset")
def test_skips_an_opset_in_which_onnx_runtime_has_no_swish() -> None:
    body = "s = Sigmoid(x) y = Mul(x, s)"
    reason = "ONNX Runtime runs Swish up to opset 24, and this is 25"
    assert_skips(model(body, opset=25), NAME, reason)


@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid(x) m = Mul(x, s) y = Mul(m, x)",
        "n = Neg(x) s = Tanh(n) y = Mul(x, s)",
        "n = Neg(x) e = Exp(n) a = Add(e, two) y = Div(x, a)",
        "n = Neg(x) e = Exp(n) a = Add(e, one) y = Div(a, x)",
        "s = Sigmoid(x) y = Mul(s, s)",
        "s = Sigmoid(x) t = Mul(two, s) y = Mul(x, t)",
        "m = ReduceMean<axes=[2]>(x) s = Sigmoid(m) y = Mul(x, s)",
    ],
)
def test_other_products_are_none(body: str) -> None:
    fused = fuse(model(body), [NAME])
    if body.startswith("s = Sigmoid(x) m"):
        assert ops(fused) == ["Swish", "Mul"]
    else:
        assert (sorted(ops(fused)), fused.decisions) == (sorted(ops(model(body))), ())


def test_skips_a_scale_per_channel() -> None:
    text = "g (float[N,4,7] x) => (float[N,4,7] y) { a = Mul(x, k) s = Sigmoid(a) y = Mul(x, s) }"
    assert_skips(model_from(text, {"k": weight(4, 1)}), NAME, "only where z is a multiple of x")


def test_transposes_and_shuffles_go_past_it() -> None:
    body = "t = Transpose<perm=[0,2,1]>(x) s = Sigmoid(t) m = Mul(t, s) "
    body += "y = Transpose<perm=[0,2,1]>(m)"
    fused = fuse(model(body), [NAME, "sink_transpose", "cancel_transpose"])
    assert ops(fused) == ["Swish"]
    assert_same_numbers(model(body), fused)


def test_channels_go_past_it() -> None:
    graph = to_graph(fuse(model("s = Sigmoid(x) y = Mul(x, s)"), [NAME]))
    assert [works_per_channel(node) for node in graph.nodes] == [True]
