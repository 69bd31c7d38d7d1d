"""expand_gelu: both formulas, in both float types, and back again."""

from __future__ import annotations

import pytest
from helpers import assert_fuses, assert_skips, model_from, ops

from deploy.fuse import fuse

NAME = "expand_gelu"
ERF = ["Div", "Erf", "Add", "Mul", "Mul"]
TANH = ["Mul", "Mul", "Add", "Mul", "Mul", "Tanh", "Add", "Mul", "Mul"]
FORMS = {"Gelu": ERF, 'Gelu<approximate="none">': ERF, 'Gelu<approximate="tanh">': TANH}


@pytest.mark.parametrize(("dtype", "rtol"), [("float", 1e-5), ("float16", 4e-3)])
@pytest.mark.parametrize("form", FORMS)
def test_is_written_out(form: str, dtype: str, rtol: float) -> None:
    text = f"g ({dtype}[N,4,7] x) => ({dtype}[N,4,7] y) {{ y = {form}(x) }}"
    model = model_from(text, opset=20)
    expanded = assert_fuses(model, NAME, FORMS[form], reason="Gelu written with", rtol=rtol)
    assert expanded.proto.graph.node[-1].output == ["y"]


@pytest.mark.parametrize("form", FORMS)
def test_recognition_undoes_it(form: str) -> None:
    text = f"g (float[N,4,7] x) => (float[N,4,7] y) {{ y = {form}(x) }}"
    expanded = fuse(model_from(text, opset=20), [NAME])
    assert ops(fuse(expanded, ["recognize_gelu"])) == ["Gelu"]


def test_the_constants_leave_rank_0_alone() -> None:
    fused = fuse(model_from("g (float x) => (float y) { y = Gelu(x) }", opset=20), [NAME])
    assert (ops(fused), str(fused.outputs[0])) == (ERF, "y float32[]")


def test_skips_float64() -> None:
    text = "g (double[N,4] x) => (double[N,4] y) { y = Gelu(x) }"
    assert_skips(model_from(text, opset=20), NAME, "only float32 and float16 .* this is float64")
