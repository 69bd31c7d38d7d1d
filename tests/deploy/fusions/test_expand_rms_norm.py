"""expand_rms_norm: axes and scale, written out, and back again."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.fusions.expand_rms_norm import expand_rms_norm
from deploy.surgery.graph import to_graph
from deploy.surgery.rewrite import Skip

NAME = "expand_rms_norm"
CHAIN = ["Mul", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]
WEIGHTS = {"w": weight(7, seed=1), "w67": weight(6, 7, seed=1)}
FORMS = {
    "RMSNormalization(x, w)": -1,
    "RMSNormalization<epsilon=0.5>(x, w)": -1,
    "RMSNormalization<axis=1>(x, w67)": -2,
    "RMSNormalization<axis=-2>(x, w67)": -2,
}


def model(form: str, *, opset: int = 23) -> Model:
    used = {n: v for n, v in WEIGHTS.items() if f"{n})" in form}
    text = f"g (float[N,6,7] x) => (float[N,6,7] y) {{ y = {form} }}"
    return model_from(text, used, opset=opset, ir=10)


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("form", FORMS)
def test_is_written_out(form: str, opset: int) -> None:
    expanded = assert_fuses(model(form, opset=opset), NAME, CHAIN, reason="written in 6 nodes")
    assert expanded.opset == opset


@pytest.mark.parametrize("form", FORMS)
def test_recognition_undoes_it(form: str) -> None:
    again = fuse(fuse(model(form), [NAME]), ["recognize_rms_norm"])
    (node,) = again.proto.graph.node
    found = {a.name: a for a in node.attribute}
    assert (node.op_type, found["axis"].i) == ("RMSNormalization", FORMS[form])
    assert found["epsilon"].f == np.float32(0.5 if "0.5" in form else 1e-5)
    (scale,) = (numpy_helper.to_array(i) for i in again.proto.graph.initializer)
    np.testing.assert_array_equal(scale, WEIGHTS["w67" if "67" in form else "w"])


def test_layer_norm_keeps_away() -> None:
    expanded = fuse(model("RMSNormalization(x, w)"), [NAME])
    assert ops(fuse(expanded, ["recognize_layer_norm"])) == CHAIN


def test_skips_float16() -> None:
    text = "g (float16[N,7] x) => (float16[N,7] y) { y = RMSNormalization(x, w) }"
    used = {"w": weight(7, dtype="float16")}
    reason = "float32 whatever its inputs are, here float16"
    assert_skips(model_from(text, used, opset=23, ir=10), NAME, reason)


def test_skips_a_scale_of_another_type() -> None:
    text = "g (float[N,7] x) => (double[N,7] y) { y = RMSNormalization(x, w) }"
    # the rule alone: ONNX's own inference takes the output's type from the wrong input
    graph = to_graph(model_from(text, {"w": weight(7, dtype="float64")}, opset=23, ir=10))
    found = expand_rms_norm(graph.nodes[0])
    assert found == Skip("its mean is float32 whatever its inputs are, here float64")


def test_skips_an_unknown_rank() -> None:
    text = (
        "g (float[N,6,7] x, int64[R] shape) => (float y) "
        "{ r = Reshape(x, shape) y = RMSNormalization(r, w) }"
    )
    used = {"w": WEIGHTS["w"]}
    assert_skips(model_from(text, used, opset=23, ir=10), NAME, "the rank of its input is unknown")
