"""ReLU outputs moved around zero, for scales that can't be: one constant, no clipping, exact."""

from __future__ import annotations

import numpy as np
import pytest
from equalized import applied, assert_equal, samples_for
from helpers import model_from, ops, weight
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.observation.evidence import Evidence
from deploy.surgery.graph import verified

WEIGHTS = {
    "w1": weight(4, 3, 3, 3, seed=1),
    "b1": weight(4, seed=2),
    "w2": weight(5, 4, 1, 1, seed=3),
    "w3": weight(5, 4, 3, 3, seed=4),
    "zero": np.float32(0),
    "six": np.float32(6),
    "vector": np.full(1, 6, np.float32),
}


def behind(activation: str, reader: str = "Conv(r, w2)", outputs: str = "y") -> Model:
    given = ", ".join(f"float[N,M,K,L] {name}" for name in outputs.split(", "))
    text = f"""g (float[N,3,6,8] x) => ({given}) {{
        a = Conv(x, w1, b1)
        r = {activation}
        y = {reader}
    }}"""
    model = model_from(text, {k: v for k, v in WEIGHTS.items() if k in text})
    return Model(verified(model.proto, "m"), "m")


def ends(model: Model, tensor: str, like: Model) -> tuple[float, float]:
    seen = Evidence(Model(verified(model.proto, "m"), "m"), samples_for(like)).ranges([tensor])
    return float(seen[tensor].low.min()), float(seen[tensor].high.max())


def bounds(model: Model) -> list[float]:
    clip = next(node for node in model.proto.graph.node if node.op_type == "Clip")
    values = {w.name: numpy_helper.to_array(w) for w in model.proto.graph.initializer}
    return [float(values[name]) for name in clip.input[1:]]


def test_a_relu_becomes_a_clip_around_zero() -> None:
    model = behind("Relu(a)")
    after = assert_equal(model, ["activation_centering"])
    low, high = ends(after, "r", model)
    assert low == pytest.approx(-high, rel=1e-5)
    assert high == pytest.approx(ends(model, "r", model)[1] / 2, rel=1e-5)
    assert ops(after) == ["Conv", "Clip", "Conv"]
    assert bounds(after) == [pytest.approx(low, rel=1e-6), np.inf]
    (said,) = applied(after)
    assert said.subject == "Relu -> r"
    assert "for 0" in said.reason


@pytest.mark.parametrize("clip", ["Clip(a, zero, six)", "Clip(a, , six)", "Clip(a, zero)"])
def test_a_clip_keeps_its_width(clip: str) -> None:
    model = behind(clip)
    after = assert_equal(model, ["activation_centering"])
    low, high = ends(after, "r", model)
    assert low == pytest.approx(-high, rel=1e-5)
    if clip == "Clip(a, zero, six)":
        first, last = bounds(after)
        assert last - first == pytest.approx(6)


@pytest.mark.parametrize(
    ("activation", "reader", "outputs"),
    [
        ("Relu(a)", "Conv<pads = [1,1,1,1]>(r, w3)", "y"),
        ("Relu(a)", "Sigmoid(r)", "y"),
        ("Relu(a)", "Conv(r, w2)", "y, r"),
        ("Relu(a)", "Conv(r, w2)", "y, a"),
        ("LeakyRelu(a)", "Conv(r, w2)", "y"),
    ],
    ids=["padded reader", "no layer", "output", "the layer is an output", "not a ReLU"],
)
def test_what_cant_be_taken_back_stays(activation: str, reader: str, outputs: str) -> None:
    model = behind(activation, reader, outputs)
    after = assert_equal(model, ["activation_centering"])
    assert not after.decisions
    assert after.sha256 == model.sha256


def test_an_asymmetric_target_has_nothing_to_gain() -> None:
    model = behind("Relu(a)")
    after = assert_equal(model, ["activation_centering"], symmetric=False)
    assert after.sha256 == model.sha256


def test_it_goes_on_from_what_others_did() -> None:
    """Ranges of equalized channels, not of those that were measured before."""
    model = behind("Relu(a)")
    after = assert_equal(model, ["channel_equalization", "activation_centering"])
    low, high = ends(after, "r", model)
    assert low == pytest.approx(-high, rel=1e-5)
