"""expand_layer_norm: axes, scale and bias, both forms of ReduceMean, and back again.

The float32 tolerance is 1e-5 of the largest value, though both sides sum in another order: the
sums are over 42 values at most.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "expand_layer_norm"
CHAIN = ["ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]
WEIGHTS = {
    "w": weight(7, seed=1),
    "b": weight(7, seed=2),
    "w67": weight(6, 7, seed=1),
    "b67": weight(6, 7, seed=2),
}
FORMS = {
    "LayerNormalization(x, w, b)": [*CHAIN, "Add"],
    "LayerNormalization(x, w)": CHAIN,
    'LayerNormalization(x, w, "")': CHAIN,
    "LayerNormalization<epsilon=0.5>(x, w, b)": [*CHAIN, "Add"],
    "LayerNormalization<axis=1>(x, w67, b67)": [*CHAIN, "Add"],
    "LayerNormalization<axis=-2>(x, w67)": CHAIN,
}


def model(form: str, *, opset: int = 17) -> Model:
    used = {n: v for n, v in WEIGHTS.items() if f"{n}," in form or f"{n})" in form}
    text = f"g (float[N,6,7] x) => (float[N,6,7] y) {{ y = {form} }}"
    return model_from(text, used, opset=opset)


@pytest.mark.parametrize("opset", [17, 18, 21])
@pytest.mark.parametrize("form", FORMS)
def test_is_written_out(form: str, opset: int) -> None:
    expanded = assert_fuses(model(form, opset=opset), NAME, FORMS[form], reason="written in")
    assert expanded.opset == opset
    mean = expanded.proto.graph.node[0]
    # axes is an attribute before opset 18 and an input since
    assert len(mean.input) == (1 if opset < 18 else 2)


@pytest.mark.parametrize("form", FORMS)
def test_recognition_undoes_it(form: str) -> None:
    expanded = fuse(model(form), [NAME])
    again = fuse(expanded, ["recognize_layer_norm"])
    assert ops(again) == ["LayerNormalization"]
    stored = [numpy_helper.to_array(i) for i in again.proto.graph.initializer]
    np.testing.assert_array_equal(stored[0], WEIGHTS["w67" if "67" in form else "w"])


def test_skips_float16() -> None:
    text = "g (float16[N,7] x) => (float16[N,7] y) { y = LayerNormalization(x, w) }"
    used = {"w": weight(7, dtype="float16")}
    assert_skips(model_from(text, used), NAME, "float32 whatever its input is, here float16")


def test_skips_statistics_that_are_asked_for() -> None:
    text = (
        "g (float[N,6,7] x) => (float[N,6,7] y, float[N,6,1] m) { y, m = LayerNormalization(x, w) }"
    )
    assert_skips(model_from(text, {"w": WEIGHTS["w"]}), NAME, "mean and deviation are asked for")


def test_skips_an_unknown_rank() -> None:
    text = (
        "g (float[N,6,7] x, int64[R] shape) => (float y) "
        "{ r = Reshape(x, shape) y = LayerNormalization(r, w) }"
    )
    assert_skips(model_from(text, {"w": WEIGHTS["w"]}), NAME, "the rank of its input is unknown")


def test_statistics_that_nobody_reads_are_no_obstacle() -> None:
    text = "g (float[N,6,7] x) => (float[N,6,7] y) { y, m = LayerNormalization(x, w) }"
    assert_fuses(model_from(text, {"w": WEIGHTS["w"]}), NAME, CHAIN)
