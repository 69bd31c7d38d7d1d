"""recognize_hard_swish: every exporter's spelling becomes one node, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import MODELS, assert_fuses, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "recognize_hard_swish"
CONSTANTS = {
    "three": np.float32(3),
    "b3": np.float32([3]),
    "minus": np.float32([-3]),
    "zero": np.float32(0),
    "six": np.float32(6),
    "sixth": np.float32(1 / 6),
    "half": np.float32(0.5),
    "one": np.float32(1),
    "wide": np.full((1, 1, 1, 1), 6, np.float32),
    "fifth": np.float32(0.2),
}
SPELLINGS = {
    "paddle": "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
    "paddle turned": "a = Add(three, x) c = Clip(a, zero, six) m = Mul(c, x) y = Div(m, wide)",
    "torch": "a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)",
    "torch, 1/6": "a = Add(x, three) c = Clip(a, zero, six) d = Mul(c, sixth) y = Mul(d, x)",
    "1/6 first": "a = Add(x, three) c = Clip(a, zero, six) d = Mul(sixth, x) y = Mul(d, c)",
    "divided first": "a = Add(x, three) c = Clip(a, zero, six) d = Div(x, six) y = Mul(c, d)",
    "1/6 last": "a = Add(x, three) c = Clip(a, zero, six) m = Mul(c, x) y = Mul(sixth, m)",
    "minus -3": "a = Sub(x, minus) c = Clip(a, zero, six) d = Mul(c, sixth) y = Mul(d, x)",
    "tensorflow": "a = Add(x, three) r = Relu(a) c = Min(r, six) d = Mul(c, sixth) y = Mul(x, d)",
    "min of max": "a = Add(x, b3) r = Max(a, zero) c = Min(six, r) d = Div(c, six) y = Mul(x, d)",
    "max of min": "a = Add(x, b3) r = Min(a, six) c = Max(zero, r) d = Div(c, six) y = Mul(x, d)",
    "relu, clip": 'a = Add(x, b3) r = Relu(a) c = Clip(r, "", six) d = Div(c, six) y = Mul(x, d)',
    "one clip": "a = Div(x, six) b = Add(a, half) c = Clip(b, zero, one) y = Mul(x, c)",
    "hard sigmoid": "s = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, s)",
    "hard sigmoid turned": "s = HardSigmoid<alpha=0.16666667>(x) y = Mul(s, x)",
    "hard sigmoid of x+3": "a = Add(x, three) "
    "s = HardSigmoid<alpha=0.16666667, beta=0.0>(a) y = Mul(s, x)",
    "hard sigmoid of x/6": "a = Div(x, six) s = HardSigmoid<alpha=1.0, beta=0.5>(a) y = Mul(s, x)",
}


def model(body: str, *, opset: int = 17, dtype: str = "float", outputs: str = "y") -> Model:
    kind = {"float": "float32", "float16": "float16", "double": "float64"}[dtype]
    ends = ", ".join(f"{dtype}[N,4,6,5] {name}" for name in outputs.split())
    text = f"g ({dtype}[N,4,6,5] x) => ({ends}) {{ {body} }}"
    used = {n: v.astype(kind) for n, v in CONSTANTS.items() if f"{n}," in body or f"{n})" in body}
    return model_from(text, used, opset=opset)


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_fuses(body: str) -> None:
    assert_fuses(model(body), NAME, ["HardSwish"], reason=r"in \d nodes is HardSwish")


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_fuses_in_float16(body: str) -> None:
    # float16 has 11 bits, and the intermediate values are rounded to them
    assert_fuses(model(body, dtype="float16"), NAME, ["HardSwish"], rtol=2e-3)


def test_the_opset_is_raised_and_the_report_says_so() -> None:
    fused = assert_fuses(model(SPELLINGS["paddle"], opset=13), NAME, ["HardSwish"])
    assert fused.opset == 14
    assert fused.decisions[0].reason.endswith("the model's opset raised from 13 to 14")


def test_bytes_saved_are_all_but_one_reading_and_writing() -> None:
    fused = assert_fuses(model(SPELLINGS["paddle"]), NAME, ["HardSwish"])
    # Add 2, Clip 2, Mul 3, Div 2; HardSwish 2
    assert [d.bytes_saved for d in fused.decisions] == [(9 - 2) * 4 * (4 * 6 * 5)]


def test_x_may_itself_be_a_scaled_value() -> None:
    text = """
    g (float[N,4] z) => (float[N,4] y) {
        s = Mul(z, fifth)  x = Add(s, three)
        a = Add(x, three)  c = Clip(a, zero, six)  m = Mul(x, c)  y = Div(m, six)
    }
    """
    used = {n: CONSTANTS[n] for n in ("fifth", "three", "zero", "six")}
    assert_fuses(model_from(text, used), NAME, ["Mul", "Add", "HardSwish"])


def test_a_clip_that_others_read_stays_for_them() -> None:
    body = SPELLINGS["paddle"] + " z = Neg(c)"
    fused = assert_fuses(
        model(body, outputs="y z"), NAME, ["Add", "HardSwish", "Clip", "Neg"], reason="2 nodes"
    )
    assert [d.bytes_saved for d in fused.decisions] == [(5 - 2) * 4 * (4 * 6 * 5)]


def test_a_clip_that_the_model_gives_out_stays() -> None:
    assert_fuses(model(SPELLINGS["paddle"], outputs="y c"), NAME, ["Add", "HardSwish", "Clip"])


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Mul(m, fifth)",
        "s = HardSigmoid(x) y = Mul(x, s)",
        "a = Add(x, half) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
        "a = Add(x, three) c = Clip(a, one, six) m = Mul(x, c) y = Div(m, six)",
        "a = Add(x, three) c = Clip(a, zero) m = Mul(x, c) y = Div(m, six)",
    ],
)
def test_skips_another_ramp(body: str) -> None:
    assert_skips(model(body), NAME, r"x \* clip\(.*\) is not HardSwish")


def test_skips_float64() -> None:
    body = SPELLINGS["paddle"]
    assert_skips(model(body, dtype="double"), NAME, "in float32 and float16, not float64")


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three) y = Mul(a, x)",
        "n = Neg(x) c = Clip(n, zero, six) d = Tanh(x) y = Mul(d, c)",
        "c = Clip(x, zero, six) y = Div(c, x)",
    ],
)
def test_other_products_are_none(body: str) -> None:
    fused = fuse(model(body), [NAME])
    assert fused.decisions == ()
    assert sorted(ops(fused)) == sorted(ops(model(body)))


def test_a_constant_that_raises_the_rank_is_no_scalar() -> None:
    text = (
        "g (float[4] x) => (float[1,4] y) "
        "{ a = Add(x, k) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six) }"
    )
    values = {"k": np.float32([[3]]), "zero": CONSTANTS["zero"], "six": CONSTANTS["six"]}
    assert fuse(model_from(text, values), [NAME]).decisions == ()


def test_a_bound_computed_at_run_time_is_none() -> None:
    text = (
        "g (float[N,4] x, float six) => (float[N,4] y) "
        "{ a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Mul(m, sixth) }"
    )
    values = {n: CONSTANTS[n] for n in ("three", "zero", "sixth")}
    assert fuse(model_from(text, values), [NAME]).decisions == ()


def test_a_scale_per_channel_is_none() -> None:
    body = "s = HardSigmoid<alpha=0.16666667>(x) m = Mul(x, s) y = Mul(m, k)"
    text = f"g (float[N,4,6,5] x) => (float[N,4,6,5] y) {{ {body} }}"
    fused = fuse(model_from(text, {"k": weight(4, 1, 1)}), [NAME])
    assert ops(fused) == ["HardSwish", "Mul"]


@pytest.mark.skipif(not MODELS.is_dir(), reason="the shared models aren't here")
def test_ppocr_has_eighteen() -> None:
    from deploy.load import load

    path = MODELS / "ppocr_cls_mobilenetv3se.onnx"
    loaded = load(Model.load(path), {"x": (None, 3, 48, 192)})
    fused = fuse(loaded, [NAME])
    assert ops(fused).count("HardSwish") == 18
    assert not {"Clip", "Div"} & set(ops(fused))
