"""recognize_gelu: both formulas in every spelling, and the opset it needs."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import MODELS, assert_fuses, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.target import Target

NAME = "recognize_gelu"
CONSTANTS = {
    "root": np.float32(np.sqrt(2)),
    "inverse": np.float32([1 / np.sqrt(2)]),
    "one": np.float32(1),
    "half": np.float32(0.5),
    "two": np.float32(2),
    "three": np.float32(3),
    "cube": np.float32(0.044715),
    "scale": np.float32(np.sqrt(2 / np.pi)),
    "whole": np.int64(3),
}
ERF = {
    "torch": "d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
    "half first": "h = Mul(x, half) d = Mul(x, inverse) e = Erf(d) a = Add(one, e) y = Mul(h, a)",
    "half inside": "d = Mul(inverse, x) e = Erf(d) a = Add(e, one) b = Mul(half, a) y = Mul(b, x)",
    "divided": "d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(a, x) y = Div(m, two)",
    "two products": "h = Mul(x, half) d = Div(x, root) e = Erf(d) m = Mul(h, e) y = Add(h, m)",
}
TANH = {
    "torch": "p = Pow(x, three) q = Mul(p, cube) r = Add(x, q) s = Mul(r, scale) t = Tanh(s) "
    "a = Add(t, one) h = Mul(x, half) y = Mul(h, a)",
    "integer power": "p = Pow(x, whole) q = Mul(cube, p) r = Add(x, q) s = Mul(scale, r) "
    "t = Tanh(s) a = Add(one, t) b = Mul(half, a) y = Mul(x, b)",
    "jax": "o = Mul(cube, x) p = Mul(x, o) q = Mul(x, p) r = Add(x, q) s = Mul(scale, r) "
    "t = Tanh(s) a = Add(one, t) b = Mul(half, a) y = Mul(x, b)",
    "keras": "p = Mul(x, x) q = Mul(p, cube) r = Add(q, one) u = Mul(x, scale) s = Mul(u, r) "
    "t = Tanh(s) a = Add(t, one) b = Mul(a, half) y = Mul(x, b)",
}


def model(body: str, *, opset: int = 17, dtype: str = "float", outputs: str = "y") -> Model:
    kind = {"float": "float32", "float16": "float16", "double": "float64"}[dtype]
    ends = ", ".join(f"{dtype}[N,4,7] {name}" for name in outputs.split())
    used = {
        n: v if n == "whole" else v.astype(kind)
        for n, v in CONSTANTS.items()
        if f"{n}," in body or f"{n})" in body
    }
    return model_from(f"g ({dtype}[N,4,7] x) => ({ends}) {{ {body} }}", used, opset=opset)


@pytest.mark.parametrize("body", ERF.values(), ids=ERF)
def test_erf_fuses(body: str) -> None:
    fused = assert_fuses(model(body), NAME, ["Gelu"], reason="around Erf are Gelu")
    assert fused.proto.graph.node[0].attribute[0].s == b"none"
    assert fused.opset == 20


@pytest.mark.parametrize("body", TANH.values(), ids=TANH)
def test_tanh_fuses(body: str) -> None:
    fused = assert_fuses(model(body), NAME, ["Gelu"], reason="around Tanh are Gelu")
    assert fused.proto.graph.node[0].attribute[0].s == b"tanh"


@pytest.mark.parametrize("body", [ERF["torch"], TANH["keras"]])
def test_float16_fuses(body: str) -> None:
    # float16 has 11 bits, and the intermediate values are rounded to them
    assert_fuses(model(body, dtype="float16"), NAME, ["Gelu"], rtol=4e-3)


def test_bytes_saved() -> None:
    fused = assert_fuses(model(ERF["torch"]), NAME, ["Gelu"])
    assert [d.bytes_saved for d in fused.decisions] == [(11 - 2) * 4 * (4 * 7)]


@pytest.mark.parametrize(
    "body",
    [
        "e = Erf(x) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
        "d = Div(x, two) e = Tanh(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
        TANH["jax"].replace("Mul(cube, x)", "Mul(half, x)"),
    ],
)
def test_skips_other_coefficients_inside(body: str) -> None:
    assert_skips(model(body), NAME, r"is not GELU: the coefficients inside differ")


def test_skips_float64() -> None:
    body = ERF["torch"]
    assert_skips(model(body, dtype="double"), NAME, "in float32 and float16, not float64")


def test_skips_where_the_opset_cannot_be_raised() -> None:
    body = ERF["torch"].replace("y =", "g =")
    text = f"""
    g (float[N,4,7,7] x, float[N,5,3,2] grid) => (float[N,4,5,3] y) {{
        {body} y = GridSample(g, grid)
    }}
    """
    used = {n: CONSTANTS[n] for n in ("root", "one", "half")}
    reason = "Gelu needs opset 20; 'GridSample -> y' would change its meaning at opset 20"
    fused = assert_skips(model_from(text, used), NAME, reason)
    assert fused.opset == 17


@pytest.mark.parametrize(
    "body",
    [
        "e = Erf(x) y = Add(e, one)",
        "d = Div(x, root) e = Erf(d) a = Add(e, one) y = Mul(x, a)",
        "d = Div(x, root) e = Erf(d) a = Sub(e, one) m = Mul(x, a) y = Mul(m, half)",
        "d = Div(x, root) e = Erf(d) a = Add(e, one) n = Neg(x) m = Exp(n) y = Mul(m, a)",
    ],
)
def test_other_products_are_none(body: str) -> None:
    fused = fuse(model(body), [NAME])
    assert (sorted(ops(fused)), fused.decisions) == (sorted(ops(model(body))), ())


@pytest.mark.skipif(not MODELS.is_dir(), reason="the shared models aren't here")
def test_minilm_has_six() -> None:
    from deploy.load import load

    shapes = {"input_ids": (None, 128), "attention_mask": (None, 128)}
    loaded = load(Model.load(MODELS / "minilm_l6_trim_fp16stored.onnx"), shapes)
    fused = fuse(loaded, [NAME])
    assert (ops(fused).count("Gelu"), ops(fused).count("Erf"), fused.opset) == (6, 0, 20)


@pytest.mark.parametrize("target", ["cpu", "intel-gpu", "arm-cpu"])
def test_a_target_recognizes_it_before_its_half_folds_into_the_layer_behind(target: str) -> None:
    """x * (1 + erf(x / sqrt(2))) * 0.5, as PyTorch's legacy exporter writes it."""
    text = """g (float[N,4,5,3] x) => (float[N,6,5,3] y)
      <float root = {1.4142135}, float one = {1}, float half = {0.5}> {
        d = Div (x, root) e = Erf (d) a = Add (e, one) m = Mul (x, a) h = Mul (m, half)
        y = Conv (h, w) }"""
    fused = fuse(model_from(text, {"w": weight(6, 4, 1, 1)}), Target.load(target).fusions)
    assert ops(fused) == ["Gelu", "Conv"]
