"""Outlier channels moved into weights: exactly, for free where a constant is in front, by a Mul
where that pays."""

from __future__ import annotations

import numpy as np
import pytest
from equalized import applied, assert_equal, samples_for
from helpers import model_from, ops, run, skips, weight

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.calibrate import calibrate
from deploy.equalizations.smooth_quant import best_factors
from deploy.metrics import sqnr_db
from deploy.observation.evidence import Evidence
from deploy.quantize import quantize
from deploy.surgery.graph import verified
from deploy.target import Target

NAME = ["smooth_quant"]


def outliers(count: int, *, times: float = 40.0, seed: int = 5) -> np.ndarray:
    values = np.abs(weight(count, seed=seed)) + 0.5
    values[3] *= times
    return values.astype(np.float32)


WEIGHTS = {
    "gamma": outliers(16),
    "beta": weight(16, seed=2),
    "w": weight(16, 9, seed=3),
    "v": weight(16, 7, seed=4),
    "u": weight(16, 16, seed=6) * outliers(16),
    "back": weight(16, 16, seed=7),
    "half": np.float32(0.5),
    "third": np.full(1, 0.3, np.float32),
    "deep": weight(16, 1, 3, 3, seed=8),
    "grouped": weight(6, 8, 3, 1, seed=9),
    "plain": weight(5, 16, 1, 1, seed=10),
    "size": outliers(16)[:, None, None],
}


def checked(body: str, x: str = "N,6,16", y: str = "N,A,B") -> Model:
    text = f"g (float[{x}] x) => (float[{y}] y) {{ {body} }}"
    model = model_from(text, {k: v for k, v in WEIGHTS.items() if k in text})
    return Model(verified(model.proto, "m"), "m")


def imbalance(model: Model, tensor: str, samples: list[Sample], axis: int) -> float:
    """How many times the largest channel is the middle one."""
    seen = Evidence(Model(verified(model.proto, "m"), "m"), samples).ranges([tensor], axis)[tensor]
    top = np.maximum(seen.high, -seen.low)
    return float(top.max() / np.median(top))


def read(model: Model) -> str:
    """What the last layer reads."""
    layers = [n for n in model.proto.graph.node if n.op_type in ("MatMul", "Conv")]
    return str(layers[-1].input[0])


NORM = "n = LayerNormalization(x, gamma, beta) "


def test_layer_norm_absorbs_the_factors() -> None:
    model = checked(NORM + "y = MatMul(n, w)")
    samples = samples_for(model)
    after = assert_equal(model, NAME, symmetric=False)
    assert ops(after) == ops(model)
    assert imbalance(after, "n", samples, 2) < 0.3 * imbalance(model, "n", samples, 2)
    (said,) = applied(after)
    assert "absorbed by LayerNormalization -> n; " in said.reason


def test_int8_loses_less() -> None:
    model = checked(NORM + "y = MatMul(n, w)")
    samples, target = samples_for(model, 6), Target.load("cpu")
    found = []
    for candidate in (model, assert_equal(model, NAME, samples=samples, symmetric=False)):
        stored = quantize(candidate, calibrate(candidate, samples, "minmax"), target)
        pairs = [(run(model, s.feeds)["y"], run(stored, s.feeds)["y"]) for s in samples]
        found.append(sqnr_db(*(np.concatenate(side) for side in zip(*pairs, strict=True))))
    # the outlier's own rows of the weights carry most of the signal, and round as before
    assert found[1] > found[0] + 2


@pytest.mark.parametrize(
    ("body", "by"),
    [
        ("m = Mul(gamma, x) n = Add(m, beta) y = MatMul(n, w)", "m"),
        ("m = MatMul(x, u) a = Add(beta, m) n = Relu(a) y = MatMul(n, w)", "m"),
        ("h = HardSwish(x) m = Mul(h, half) n = Mul(m, gamma) y = MatMul(n, w)", "n"),
    ],
)
def test_constants_in_front_absorb_them(body: str, by: str) -> None:
    after = assert_equal(checked(body), NAME)
    (said,) = (d for d in applied(after) if d.subject == "n")
    assert f" -> {by}; " in said.reason
    assert read(after) == "n"


def test_one_number_becomes_one_per_channel_of_a_map() -> None:
    """PP-LCNet's learned affine map behind HardSwish, read by a depthwise convolution."""
    body = "s = Mul(x, size) h = HardSwish(s) m = Mul(third, h) n = Add(m, half) "
    body += "y = Conv<group = 16, pads = [1,1,1,1]>(n, deep)"
    model = checked(body, "N,16,5,4", "N,A,B,C")
    after = assert_equal(model, NAME)
    assert ops(after) == ops(model)
    # weights of a depthwise convolution have a scale per channel: all of the imbalance goes
    assert imbalance(after, "n", samples_for(model), 1) < 1.01


@pytest.mark.parametrize("layer", ["Conv<group = 2>(n, grouped)", "Conv(n, plain)"])
def test_a_map_gets_a_mul_where_much_is_gained(layer: str) -> None:
    body = f"s = Mul(x, size) n = HardSwish(s) y = {layer}"
    model = checked(body, "N,16,5,4", "N,A,B,C")
    after = assert_equal(model, NAME)
    assert ops(after) == ["Mul", "HardSwish", "Mul", "Conv"]
    assert "by a Mul, as HardSwish -> n (HardSwish) can't give out its channels" in (
        applied(after)[0].reason
    )


def test_all_layers_share_one_mul_beside_a_residual_add() -> None:
    body = NORM + "q = MatMul(n, w) y = MatMul(n, v) b = MatMul(n, back) z = Add(b, n)"
    text = f"g (float[N,6,16] x) => (float[N,A,B] y, float[N,C,D] q, float[N,E,F] z) {{ {body} }}"
    model = model_from(text, {k: v for k, v in WEIGHTS.items() if k in text})
    after = assert_equal(model, NAME)
    nodes = {node.output[0]: node for node in after.proto.graph.node}
    assert {nodes[out].input[0] for out in ("q", "y", "b")} == {"n/smoothed"}
    assert nodes["z"].input[1] == "n"
    assert "by a Mul, as Add -> z reads 'n' too" in applied(after)[0].reason


def test_what_the_caller_gets_stays_as_it_is() -> None:
    text = f"g (float[N,6,16] x) => (float[N,A,B] y, float[N,6,16] n) {{ {NORM} y = MatMul(n, w) }}"
    model = model_from(text, {k: WEIGHTS[k] for k in ("gamma", "beta", "w")})
    after = assert_equal(model, NAME)
    assert "by a Mul, as the model's caller reads 'n' too" in applied(after)[0].reason


def test_a_shape_needs_no_values() -> None:
    body = NORM + "q = MatMul(n, w) s = Shape(n) f = Cast<to = 1>(s) p = ReduceSum(f) y = Mul(q, p)"
    model = checked(body)
    after = assert_equal(model, NAME)
    assert ops(after) == ops(model)
    assert "absorbed by LayerNormalization" in applied(after)[0].reason


def test_channels_that_begin_as_one_are_divided_behind_it() -> None:
    body = "m = LayerNormalization(x, one) n = Add(m, gamma) y = MatMul(n, w)"
    text = f"g (float[N,6,1] x) => (float[N,6,9] y) {{ {body} }}"
    model = model_from(text, {"one": np.ones(1, np.float32), **WEIGHTS})
    after = assert_equal(model, NAME)
    assert "by a Mul, as LayerNormalization -> m (Layer" in applied(after)[0].reason


def test_weights_and_factors_that_others_share_stay_theirs() -> None:
    body = NORM + "a = MatMul(n, back) m = LayerNormalization(a, gamma, beta) y = MatMul(m, back)"
    after = assert_equal(checked(body), NAME)
    names = [name for node in after.proto.graph.node for name in node.input[1:]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("body", "x", "reason"),
    [
        ("n = Tanh(x) y = MatMul(n, w)", "N,6,16", "under 1 dB; Tanh -> n (Tanh) can't"),
        ("n = Tanh(x) y = Conv(n, plain)", "N,16,5,4", "under 6 dB; Tanh -> n (Tanh) can't"),
        ("n = Tanh(x) y = MatMul(n, w)", "N,16", "under 6 dB"),
        ("n = Sub(x, x) y = MatMul(n, w)", "N,6,16", "0.0 dB less noise expected"),
    ],
)
def test_what_gains_too_little_is_left(body: str, x: str, reason: str) -> None:
    model = checked(body, x, ",".join("NABC"[: x.count(",") + 1]))
    after = assert_equal(model, NAME)
    assert after.sha256 == model.sha256
    assert reason in skips(after.decisions)[0]


def test_even_channels_are_left_where_it_would_be_free() -> None:
    body = "n = LayerNormalization(x, g) y = MatMul(n, w)"
    text = f"g (float[N,16,16] x) => (float[N,16,9] y) {{ {body} }}"
    model = model_from(text, {"g": np.ones(16, np.float32), "w": np.sign(WEIGHTS["w"])})
    row = weight(16, seed=13)
    feed = {"x": np.stack([np.roll(row, i) for i in range(16)])[None]}
    after = assert_equal(model, NAME, samples=[Sample("even", feed)])
    assert skips(after.decisions) == ["0.0 dB less noise expected, under 0.2 dB"]


@pytest.mark.parametrize(
    ("body", "obstacle"),
    [
        ("n = LayerNormalization<axis = 1>(x, g2) y = MatMul(n, w)", "(LayerNormalization) can't"),
        ("n = Div(x, gamma) y = MatMul(n, u)", "(Div) can't give out"),
        ("n = Identity(x) m = Mul(n, gamma) y = Add(m, m) z = MatMul(m, w)", "reads 'm' too"),
        ("z = MatMul(x, u) y = Mul(x, gamma)", "reads 'x' too"),
        ("y = MatMul(x, u)", "'x' is an input of the model"),
    ],
)
def test_what_cannot_absorb_says_why(body: str, obstacle: str) -> None:
    outputs = "float[N,A,B] y" + (", float[N,C,D] z" if "z =" in body else "")
    model = model_from(
        f"g (float[N,6,16] x) => ({outputs}) {{ {body} }}",
        {**{k: v for k, v in WEIGHTS.items() if k in body}, "g2": np.tile(outliers(16), (6, 1))},
    )
    feed = {"x": weight(2, 6, 16, seed=11) * outliers(16)}
    after = assert_equal(model, NAME, samples=[Sample("a", feed)])
    assert any(obstacle in d.reason for d in after.decisions)
    assert not any("absorbed" in d.reason for d in after.decisions)


def test_factors_have_a_mean_of_one_and_a_dead_channel_is_not_blown_up() -> None:
    ends = np.zeros((2, 16))
    ends[1] = outliers(16)
    ends[1, 7] = 0
    layer = weight(1, 16, 9, 1, seed=12).astype(np.float64)
    factors, gain_db = best_factors([layer], ends, symmetric=False)
    assert np.exp(np.log(factors).mean()) == pytest.approx(1)
    assert factors.argmax() == 3 and gain_db > 6
    assert factors[7] >= factors[3] / 256
    # the same data without an outlier gains less
    ends[1, 3] = 1
    assert best_factors([layer], ends, symmetric=False)[1] < gain_db / 2


def test_a_symmetric_scale_counts_the_larger_side_twice() -> None:
    """One-sided outliers cost a symmetric scale as many dB, and moving them gains as many."""
    ends = np.stack([np.full(16, -0.1), outliers(16)])
    layer = weight(1, 16, 9, 1, seed=12).astype(np.float64)
    gains = [best_factors([layer], ends, symmetric=s)[1] for s in (False, True)]
    assert gains[1] >= gains[0] > 6
