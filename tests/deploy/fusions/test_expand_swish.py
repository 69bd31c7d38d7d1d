"""expand_swish: written out, and back again."""

from __future__ import annotations

import onnx
import pytest
from helpers import assert_fuses, assert_skips, feeds_for, model_from, ops, run

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "expand_swish"
FORMS = {
    "Swish": ["Sigmoid", "Mul"],
    "Swish<alpha=1.0>": ["Sigmoid", "Mul"],
    "Swish<alpha=1.702>": ["Mul", "Sigmoid", "Mul"],
    "Swish<alpha=-0.5>": ["Mul", "Sigmoid", "Mul"],
}


def model(form: str, *, dtype: str = "float", opset: int = 24) -> Model:
    text = f"g ({dtype}[N,4,7] x) => ({dtype}[N,4,7] y) {{ y = {form}(x) }}"
    return model_from(text, opset=opset, ir=10)


@pytest.mark.parametrize(("dtype", "rtol"), [("float", 1e-6), ("float16", 4e-3)])
@pytest.mark.parametrize("form", FORMS)
def test_is_written_out(form: str, dtype: str, rtol: float) -> None:
    fused = assert_fuses(
        model(form, dtype=dtype), NAME, FORMS[form], reason="Swish written with", rtol=rtol
    )
    assert fused.opset == 24


@pytest.mark.parametrize("form", FORMS)
def test_recognition_undoes_it(form: str) -> None:
    (again,) = fuse(fuse(model(form), [NAME]), ["recognize_swish"]).proto.graph.node
    alpha = float(form.split("=")[1].rstrip(">")) if "=" in form else 1.0
    assert (again.op_type, again.attribute[0].f) == ("Swish", pytest.approx(alpha, rel=1e-6))


def test_the_constant_leaves_rank_0_alone() -> None:
    text = "g (float x) => (float y) { y = Swish<alpha=2.0>(x) }"
    fused = fuse(model_from(text, opset=24, ir=10), [NAME])
    assert (ops(fused), str(fused.outputs[0])) == (["Mul", "Sigmoid", "Mul"], "y float32[]")


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 25, reason="this onnx knows no later opset")
def test_what_onnx_runtime_cannot_run_runs_afterwards() -> None:
    from deploy.errors import BuildError

    newer = model("Swish<alpha=1.702>", opset=25)
    feeds = feeds_for(newer)
    with pytest.raises(BuildError, match=r"Swish\(24\)"):
        run(newer, feeds)
    expected = run(model("Swish<alpha=1.702>"), feeds)["y"]
    assert run(fuse(newer, [NAME]), feeds)["y"] == pytest.approx(expected, rel=1e-6)


def test_skips_float64() -> None:
    assert_skips(model("Swish", dtype="double"), NAME, "float32 and float16.*this is float64")
