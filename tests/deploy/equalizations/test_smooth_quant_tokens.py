"""SmoothQuant without a pass over a map: tokens and what a constant absorbs, nothing else."""

from __future__ import annotations

import numpy as np
from equalized import applied, assert_equal
from helpers import model_from, ops, skips, weight

from deploy.artifacts.model import Model
from deploy.surgery.graph import verified

NAME = ["smooth_quant_tokens"]
SIZES = np.abs(weight(16, seed=5)) + 0.5
SIZES[3] *= 40
WEIGHTS = {
    "plain": weight(5, 16, 1, 1, seed=10),
    "w": weight(16, 9, seed=3),
    "size": SIZES.astype(np.float32)[:, None, None],
    "gamma": SIZES.astype(np.float32),
}


def checked(text: str) -> Model:
    model = model_from(text, {k: v for k, v in WEIGHTS.items() if k in text})
    return Model(verified(model.proto, "m"), "m")


def test_a_map_gets_no_mul_whatever_it_promises() -> None:
    model = checked(
        "g (float[N,16,5,4] x) => (float[N,A,B,C] y) "
        "{ s = Mul(x, size) n = HardSwish(s) y = Conv(n, plain) }"
    )
    after = assert_equal(model, NAME)
    assert ops(after) == ops(model)
    assert any("a Mul of a map isn't wanted here" in reason for reason in skips(after.decisions))
    # the same map has one from smooth_quant
    assert ops(assert_equal(model, ["smooth_quant"])).count("Mul") == 2


def test_a_constant_in_front_still_absorbs_a_maps_factors() -> None:
    model = checked(
        "g (float[N,16,5,4] x) => (float[N,A,B,C] y) { n = Mul(x, size) y = Conv(n, plain) }"
    )
    after = assert_equal(model, NAME)
    assert "absorbed by" in applied(after)[0].reason


def test_tokens_get_their_mul() -> None:
    model = checked(
        "g (float[N,6,16] x) => (float[N,A,B] y) "
        "{ s = Mul(x, gamma) n = Tanh(s) t = Mul(n, gamma) h = HardSwish(t) y = MatMul(h, w) }"
    )
    after = assert_equal(model, NAME)
    assert "by a Mul" in applied(after)[0].reason
