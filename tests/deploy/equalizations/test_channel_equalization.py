"""Channels of one tensor brought to similar ranges: how far, where, and where not."""

from __future__ import annotations

import numpy as np
import pytest
from equalized import applied, assert_equal, largest_error, samples_for
from helpers import model_from, skips, weight

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.equalize import equalize
from deploy.observation.evidence import Evidence
from deploy.surgery.graph import verified

SIZES = np.array([1.0, 0.1, 0.01, 0.5]).reshape(4, 1, 1, 1)
WEIGHTS = {
    "w1": (weight(4, 3, 1, 1, seed=1) * SIZES).astype(np.float32),
    "b1": (weight(4, seed=2) * SIZES.reshape(4)).astype(np.float32),
    "dw": weight(4, 1, 3, 3, seed=3),
    "w2": weight(5, 4, 1, 1, seed=4),
    "zero": np.float32(0),
    "six": np.float32(6),
    "low": np.float32(-2),
}


def chain(activation: str, reader: str = "Conv(r, w2)", outputs: str = "y") -> Model:
    given = ", ".join(f"float[N,M,K,L] {name}" for name in outputs.split(", "))
    text = f"""g (float[N,3,6,8] x) => ({given}) {{
        a = Conv(x, w1, b1)
        r = {activation}
        y = {reader}
    }}"""
    model = model_from(text, {k: v for k, v in WEIGHTS.items() if k in text})
    return Model(verified(model.proto, "m"), "m")


def tops(model: Model, tensor: str, samples: list[Sample]) -> np.ndarray:
    model = Model(verified(model.proto, "m"), "m")
    seen = Evidence(model, samples).ranges([tensor])[tensor]
    return np.maximum(np.abs(seen.low), np.abs(seen.high))


def test_channels_of_a_depthwise_reader_become_equal() -> None:
    model = chain("Relu(a)", "Conv<group = 4>(r, dw)")
    after = assert_equal(model, ["channel_equalization"])
    reached = tops(after, "r", samples_for(model))
    np.testing.assert_allclose(reached, reached.max(), rtol=1e-5)
    assert reached.max() == pytest.approx(tops(model, "r", samples_for(model)).max(), rel=1e-5)


def test_a_dense_reader_halves_the_imbalance_in_decibels() -> None:
    model = chain("Relu(a)")
    before = tops(model, "r", samples_for(model))
    after = tops(assert_equal(model, ["channel_equalization"]), "r", samples_for(model))
    np.testing.assert_allclose(after / after.max(), np.sqrt(before / before.max()), rtol=1e-4)


def test_a_clip_keeps_what_calibration_saw_and_a_margin() -> None:
    model = chain("Clip(a, zero, six)", "Conv<group = 4>(r, dw)")
    samples = samples_for(model, 8)
    after = assert_equal(model, ["channel_equalization"], samples=samples)
    before, reached = tops(model, "r", samples), tops(after, "r", samples)
    # as far as a fifth more could reach without the Clip cutting it
    np.testing.assert_allclose(reached[1:], np.minimum(before.max(), 6 / 1.2), rtol=1e-4)
    assert reached[0] == pytest.approx(before[0], rel=1e-5)


def test_a_clip_with_a_low_end_bounds_both_ways() -> None:
    model = chain("Clip(a, low, six)", "Conv<group = 4>(r, dw)")
    samples = samples_for(model, 8)
    after = assert_equal(model, ["channel_equalization"], samples=samples)
    seen = Evidence(Model(verified(after.proto, "m"), "m"), samples).ranges(["r"])["r"]
    before = Evidence(model, samples).ranges(["r"])["r"]
    grown = seen.high / before.high
    assert (grown > 2).any()
    assert (seen.low[grown > 1.001] >= -2 / 1.19).all()
    assert (seen.high[grown > 1.001] <= 6 / 1.19).all()


def test_values_beyond_the_margin_may_be_cut() -> None:
    """What the docstring warns of, and why the margin is there."""
    model = chain("Clip(a, zero, six)", "Conv<group = 4>(r, dw)")
    samples = samples_for(model, 4)
    after = equalize(model, samples, ["channel_equalization"], symmetric=False)
    a_little_more = [Sample("m", {"x": s.feeds["x"] * np.float32(1.1)}) for s in samples]
    far_more = [Sample("f", {"x": s.feeds["x"] * np.float32(3)}) for s in samples]
    assert largest_error(model, after, a_little_more) < 1e-5
    assert largest_error(model, after, far_more) > 1e-3


def test_dead_channels_and_single_channels_stay() -> None:
    dead = dict(WEIGHTS)
    dead["w1"], dead["b1"] = WEIGHTS["w1"].copy(), WEIGHTS["b1"].copy()
    dead["w1"][1], dead["b1"][1] = 0, 0  # always 0
    dead["w1"][2], dead["b1"][2] = 0, 0.25  # always 1/4
    text = """g (float[N,3,6,8] x) => (float[N,5,6,8] y) {
        a = Conv(x, w1, b1) r = Relu(a) y = Conv(r, w2)
    }"""
    model = Model(
        verified(model_from(text, {k: dead[k] for k in ("w1", "b1", "w2")}).proto, "m"), "m"
    )
    after = assert_equal(model, ["channel_equalization"])
    reached = tops(after, "r", samples_for(model))
    assert reached[1] == 0
    assert np.isfinite(reached).all()
    one = model_from(
        "g (float[N,3,6,8] x) => (float[N,1,6,8] y) { a = Conv(x, u) r = Relu(a) y = Conv(r, v) }",
        {"u": weight(1, 3, 1, 1), "v": weight(1, 1, 1, 1)},
    )
    assert not applied(assert_equal(one, ["channel_equalization"]))


def test_a_nearly_dead_channel_isnt_blown_up() -> None:
    weights = {k: WEIGHTS[k].copy() for k in ("w1", "b1", "dw")}
    weights["w1"][2] *= 1e-5
    weights["b1"][2] *= 1e-5
    text = """g (float[N,3,6,8] x) => (float[N,4,4,6] y) {
        a = Conv(x, w1, b1) r = Relu(a) y = Conv<group = 4>(r, dw)
    }"""
    model = Model(verified(model_from(text, weights).proto, "m"), "m")
    after = assert_equal(model, ["channel_equalization"])
    found = {w.name: np.frombuffer(w.raw_data, np.float32) for w in after.proto.graph.initializer}
    grown = found["w1"].reshape(4, -1)[2] / weights["w1"].reshape(4, -1)[2]
    np.testing.assert_allclose(grown, 256, rtol=1e-6)


def test_every_layer_gets_a_reason() -> None:
    model = chain("Relu(a)", outputs="y, r")
    after = equalize(model, samples_for(model), ["channel_equalization"], symmetric=False)
    assert skips(after.decisions) == ["an output of the model"] * 2
    assert after.sha256 == model.sha256
    equal = assert_equal(chain("Relu(a)"), ["channel_equalization"])
    assert [d.reason.split(" times")[0] for d in applied(equal)] == ["3 of 4 channels"]


def test_samples_are_read_only_where_there_is_something_to_measure() -> None:
    model = chain("Sigmoid(a)")
    after = equalize(model, [], ["channel_equalization"], symmetric=False)
    assert after.sha256 == model.sha256


def test_few_samples_leave_headroom() -> None:
    """What two halves of 64 samples differ by is left as room, and nothing from 128 on."""
    model = chain("Relu(a)", "Conv<group = 4>(r, dw)")
    model = model.derive(verified(model.proto, "m"), ())
    some = list(samples_for(model, 64))
    evidence = Evidence(model, some)
    seen = evidence.ranges(["r"])["r"]
    halves = [Evidence(model, some[i::2]).ranges(["r"])["r"] for i in (0, 1)]
    apart = np.abs(halves[0].high - halves[1].high)
    assert apart.max() > 0
    np.testing.assert_allclose(evidence.headroom("r"), apart, rtol=1e-6)
    reached = tops(equalize(model, some, ["channel_equalization"], symmetric=False), "r", some)
    share = np.clip((seen.high + apart) / seen.high.max(), 1 / 256, 1)
    np.testing.assert_allclose(reached, seen.high / share, rtol=1e-4)
    assert np.all(Evidence(model, [*some, *some]).headroom("r") == 0)


def test_too_few_samples_are_refused_with_the_number() -> None:
    model = chain("Relu(a)")
    few = list(samples_for(model, 31))
    after = equalize(model, few, ["channel_equalization"], symmetric=False)
    assert [(d.outcome, d.reason) for d in after.decisions] == [
        ("skipped", "31 samples don't show how far channels reach; give 32")
    ]
    assert applied(equalize(model, [*few, few[0]], ["channel_equalization"], symmetric=False))
