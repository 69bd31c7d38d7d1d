"""expand_hard_sigmoid: the numbers stay, and recognition undoes it."""

from __future__ import annotations

import pytest
from helpers import assert_fuses, assert_skips, model_from, ops

from deploy.fuse import fuse
from deploy.fusions.expand_hard_sigmoid import expand_hard_sigmoid
from deploy.surgery.graph import to_graph
from deploy.surgery.rewrite import Replace

NAME = "expand_hard_sigmoid"
FORMS = ["HardSigmoid", "HardSigmoid<alpha=0.16666667>", "HardSigmoid<alpha=0.3, beta=0.1>"]


@pytest.mark.parametrize(("dtype", "rtol"), [("float", 1e-5), ("float16", 2e-3)])
@pytest.mark.parametrize("form", FORMS)
def test_is_written_out(form: str, dtype: str, rtol: float) -> None:
    text = f"g ({dtype}[N,4,7] x) => ({dtype}[N,4,7] y) {{ y = {form}(x) }}"
    assert_fuses(model_from(text), NAME, ["Mul", "Add", "Clip"], reason="written", rtol=rtol)


@pytest.mark.parametrize("form", FORMS)
def test_recognition_undoes_it(form: str) -> None:
    text = f"g (float[N,4,7] x) => (float[N,4,7] y) {{ y = {form}(x) }}"
    expanded = fuse(model_from(text), [NAME])
    assert ops(fuse(expanded, ["recognize_hard_sigmoid"])) == ["HardSigmoid"]


def test_the_steps_are_what_the_operator_is() -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { y = HardSigmoid<alpha=0.25, beta=0.75>(x) }"
    (node,) = to_graph(model_from(text)).nodes
    found = expand_hard_sigmoid(node)
    assert isinstance(found, Replace)
    assert [[float(v) for v in new.inputs[1:]] for new in found.add] == [[0.25], [0.75], [0, 1]]


def test_skips_float64() -> None:
    text = "g (double[N,4] x) => (double[N,4] y) { y = HardSigmoid(x) }"
    assert_skips(model_from(text), NAME, "only float32 and float16 .* this is float64")
