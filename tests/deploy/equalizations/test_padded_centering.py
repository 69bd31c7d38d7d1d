"""Values moved around zero although zeros are padded to them: exact, on the grid, where it pays."""

from __future__ import annotations

import numpy as np
import pytest
from equalized import Enough, applied, assert_equal, samples_for
from helpers import model_from, ops, weight
from onnx import numpy_helper

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.observation.evidence import Evidence
from deploy.surgery.graph import verified

ONLY = ["padded_centering"]
PADS = "pads = [1,0,2,1]"
WEIGHTS = {
    "w1": weight(4, 3, 3, 3, seed=1),
    "b1": weight(4, seed=2),
    "w3": weight(5, 4, 3, 3, seed=4),
    "w4": weight(5, 8, 3, 3, seed=5),
    "w5": weight(7, 4, 1, 1, seed=6),
    "zero": np.float32(0),
    "six": np.float32(6),
    "thirty": np.float32(30),
}


def network(body: str, outputs: str = "float[N,M,K,L] y", x: str = "float[N,3,9,7] x") -> Model:
    model = model_from(
        f"g ({x}) => ({outputs}) {{ {body} }}", {k: v for k, v in WEIGHTS.items() if k in body}
    )
    return Model(verified(model.proto, "m"), "m")


def behind(activation: str) -> Model:
    """A layer that pads reads an activation, most of whose noise is its own."""
    return network(f"a = Conv(x, w1, b1) r = {activation} y = Conv<{PADS}>(r, w3)")


def balanced(model: Model) -> Enough:
    """Samples of which each has its negative beside it: an input that lies around zero."""
    some = samples_for(model)
    return Enough(Sample(s.name, {"x": k * s.feeds["x"]}) for s in some for k in (1, -1))


def lopsided(model: Model, count: int = 3) -> Enough:
    """Samples between -1 and 9 or so."""
    moved = samples_for(model, count)
    return Enough(Sample(s.name, {"x": 3 * s.feeds["x"] % 10 - 1}) for s in moved)


def constants(model: Model) -> dict[str, np.ndarray]:
    return {w.name: numpy_helper.to_array(w) for w in model.proto.graph.initializer}


def padding(model: Model) -> tuple[list[int], float]:
    (pad,) = [node for node in model.proto.graph.node if node.op_type == "Pad"]
    values = constants(model)
    return values[pad.input[1]].tolist(), float(values[pad.input[2]])


@pytest.mark.parametrize("activation", ["Relu(a)", "Clip(a, zero, thirty)"])
def test_an_activation_is_padded_with_what_zero_became(activation: str) -> None:
    model = behind(activation)
    samples = balanced(model)
    after = assert_equal(model, ["channel_shifting", *ONLY], samples=samples)
    assert ops(after) == ["Conv", "Clip", "Pad", "Conv"]
    amounts, value = padding(after)
    assert amounts == [0, 0, 1, 0, 0, 0, 2, 1]
    seen = Evidence(Model(verified(after.proto, "m"), "m"), samples).ranges(["r"])["r"]
    assert seen.low.min() == np.float32(value)
    assert seen.high.max() == pytest.approx(-value, rel=1e-5)
    (said,) = applied(after)
    assert "of the noise; moved by -" in said.reason


def test_an_input_of_the_model_keeps_zero_on_the_grid() -> None:
    model = network(f"y = Conv<{PADS}>(x, w1, b1)")
    samples = lopsided(model)
    after = assert_equal(model, ONLY, samples=samples)
    assert ops(after) == ["Add", "Pad", "Conv"]
    _, value = padding(after)
    low = min(float(sample.feeds["x"].min()) for sample in samples)
    high = max(float(sample.feeds["x"].max()) for sample in samples)
    scale = max(high + value, -low - value) / 127
    assert value / scale == pytest.approx(round(value / scale), abs=1e-3)
    assert max(high + value, -low - value) < 0.6 * max(high, -low)


def test_through_a_shuffle() -> None:
    body = f"""a = Conv(x, w1, b1) r = Relu(a)
        s = Reshape(r, wide) t = Transpose<perm = [0,2,1,3,4]>(s) u = Reshape(t, narrow)
        y = Conv<{PADS}>(u, w3)"""
    shapes = {"wide": np.array([0, 2, 2, 7, 5]), "narrow": np.array([0, 4, 7, 5])}
    text = f"g (float[1,3,9,7] x) => (float[N,M,K,L] y) {{ {body} }}"
    model = model_from(text, {k: v for k, v in (WEIGHTS | shapes).items() if k in body})
    model = Model(verified(model.proto, "m"), "m")
    after = assert_equal(model, ONLY, samples=balanced(model))
    assert ops(after)[-2:] == ["Pad", "Conv"]


def test_readers_that_pad_nothing_take_it_back_too() -> None:
    body = f"a = Conv(x, w1, b1) r = Relu(a) y = Conv<{PADS}>(r, w3) z = Conv(r, w5)"
    model = network(body, "float[N,M,K,L] y, float[N,P,Q,R] z")
    after = assert_equal(model, ONLY, samples=balanced(model))
    assert sorted(ops(after)) == ["Clip", "Conv", "Conv", "Conv", "Pad"]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (
            f"a = Conv(x, w1) r = Relu(a) y = Conv<{PADS}>(r, w3)",
            "float[N,M,K,L] y, float[N,4,7,5] r",
        ),
        (f"a = Conv(x, w1) r = Relu(a) s = Sigmoid(r) y = Conv<{PADS}>(s, w3)", ""),
        ('a = Conv(x, w1) r = Relu(a) y = Conv<auto_pad = "SAME_UPPER">(r, w3)', ""),
        (
            f"""a = Conv(x, w1) r = Relu(a) b = Conv<strides = [1,1], pads = [0,0,0,0]>(x, w1)
            c = Clip(b, zero, six) j = Concat<axis = 1>(r, c) y = Conv<{PADS}>(j, w4)""",
            "",
        ),
        (
            f"""a = Conv(x, w1) r = Relu(a) b = Conv(x, w1) c = Relu(b) s = Add(r, c)
            y = Conv<{PADS}>(s, w3)""",
            "",
        ),
    ],
    ids=["an output", "a Sigmoid", "SAME", "two constants in one map", "a sum of two"],
)
def test_what_cant_be_taken_back_stays(body: str, outputs: str) -> None:
    model = network(body, outputs or "float[N,M,K,L] y")
    after = assert_equal(model, ONLY, samples=balanced(model))
    assert after.sha256 == model.sha256


def test_half_a_decibel_is_asked_for() -> None:
    """Values cut at 6 bring little noise beside the input, which lies around zero."""
    model = behind("Clip(a, zero, six)")
    after = assert_equal(model, ONLY, samples=balanced(model))
    assert after.sha256 == model.sha256
    (said,) = after.decisions
    assert said.outcome == "skipped"
    assert said.reason.endswith("of the 0.5 that a Pad is worth")


def test_what_lies_around_zero_has_nothing_to_gain() -> None:
    model = network(f"y = Conv<{PADS}>(x, w1, b1)")
    after = assert_equal(model, ONLY, samples=balanced(model))
    assert not after.decisions


def test_outputs_without_noise_are_named() -> None:
    body = f"r = Relu(x) y = Conv<{PADS}>(x, w1) d = Div(y, zero) o = ArgMax<axis = 1>(d)"
    model = network(body, "int64[N,1,K,L] o")
    after = assert_equal(model, ONLY, samples=lopsided(model))
    assert after.sha256 == model.sha256
    (said,) = after.decisions
    assert "can't be measured" in said.reason
    assert "'d'" in said.reason


def test_an_asymmetric_target_has_nothing_to_gain() -> None:
    model = behind("Relu(a)")
    after = assert_equal(model, ONLY, symmetric=False)
    assert after.sha256 == model.sha256
