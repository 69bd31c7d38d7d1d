"""recognize_hard_sigmoid: ramps from 0 to 1, with the constants around them inside."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "recognize_hard_sigmoid"
CONSTANTS = {
    "three": np.float32(3),
    "zero": np.float32(0),
    "six": np.float32(6),
    "sixth": np.float32([1 / 6]),
    "half": np.float32(0.5),
    "one": np.float32(1),
    "two": np.float32(2),
    "minus": np.float32(-2),
}
# body: slope, offset
SPELLINGS = {
    "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)": (1 / 6, 0.5),
    "a = Add(x, three) c = Clip(a, zero, six) y = Mul(sixth, c)": (1 / 6, 0.5),
    "a = Add(three, x) r = Relu(a) c = Min(r, six) y = Div(c, six)": (1 / 6, 0.5),
    "a = Sub(x, minus) r = Min(a, six) c = Max(r, zero) y = Div(c, six)": (1 / 6, 1 / 3),
    "a = Mul(x, half) b = Add(a, half) y = Clip(b, zero, one)": (0.5, 0.5),
    "a = Div(x, two) b = Sub(a, half) y = Clip(b, zero, one)": (0.5, -0.5),
    "a = Mul(x, two) y = HardSigmoid(a)": (0.4, 0.5),
    "a = Add(x, three) b = Mul(a, half) y = HardSigmoid<alpha=0.3, beta=0.2>(b)": (0.15, 0.65),
    "n = Neg(x) y = Sub(one, s) s = HardSigmoid(n)": (0.2, 0.5),
    "a = Mul(x, minus) b = Sub(one, a) y = Clip(b, zero, one)": (2.0, 1.0),
}


def model(body: str, *, dtype: str = "float", outputs: str = "y") -> Model:
    kind = {"float": "float32", "float16": "float16", "double": "float64"}[dtype]
    if body.startswith("n = Neg"):
        body = "n = Neg(x) s = HardSigmoid(n) y = Sub(one, s)"
    ends = ", ".join(f"{dtype}[N,4,6,5] {name}" for name in outputs.split())
    used = {n: v.astype(kind) for n, v in CONSTANTS.items() if f"{n}," in body or f"{n})" in body}
    return model_from(f"g ({dtype}[N,4,6,5] x) => ({ends}) {{ {body} }}", used)


@pytest.mark.parametrize("body", SPELLINGS)
def test_every_spelling_fuses(body: str) -> None:
    fused = assert_fuses(model(body), NAME, ["HardSigmoid"])
    attrs = {a.name: a.f for a in fused.proto.graph.node[0].attribute}
    assert (attrs["alpha"], attrs["beta"]) == pytest.approx(SPELLINGS[body], rel=1e-6)


def test_float16_fuses() -> None:
    assert_fuses(model(next(iter(SPELLINGS)), dtype="float16"), NAME, ["HardSigmoid"], rtol=2e-3)


def test_bytes_saved() -> None:
    fused = assert_fuses(model(next(iter(SPELLINGS))), NAME, ["HardSigmoid"])
    assert [d.bytes_saved for d in fused.decisions] == [4 * 4 * (4 * 6 * 5)]


def test_what_others_read_is_where_it_begins() -> None:
    body = "a = Mul(x, two) b = Add(a, half) y = HardSigmoid(b) z = Neg(a)"
    assert_fuses(model(body, outputs="y z"), NAME, ["Mul", "Neg", "HardSigmoid"])


def test_skips_where_nothing_would_go_away() -> None:
    body = "a = Mul(x, two) y = HardSigmoid(a) z = Neg(a)"
    assert_skips(model(body, outputs="y z"), NAME, "nothing would go away")
    assert_skips(model("a = Mul(x, two) y = HardSigmoid(a)", outputs="y a"), NAME, "read elsewhere")


def test_skips_float64() -> None:
    body = next(iter(SPELLINGS))
    assert_skips(model(body, dtype="double"), NAME, "in float32 and float16, not float64")


@pytest.mark.parametrize(
    "body",
    [
        "y = HardSigmoid(x)",
        "y = Clip(x, zero, one)",
        "a = Add(x, three) y = Clip(a, zero, six)",
        "a = Add(x, three) b = Clip(a, one, six) y = Div(b, six)",
        "a = Mul(x, minus) y = HardSigmoid(a)",
        "a = Mul(x, zero) y = HardSigmoid(a)",
        "a = Mul(x, x) y = HardSigmoid(a)",
    ],
)
def test_other_chains_are_none(body: str) -> None:
    fused = fuse(model(body), [NAME])
    assert fused.decisions == ()
    assert sorted(ops(fused)) == sorted(ops(model(body)))
