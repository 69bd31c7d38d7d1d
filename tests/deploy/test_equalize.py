"""The stage: equalizations in the target's order, on samples that are read once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from equalized import assert_equal, samples_for
from helpers import model_from, weight

from calibrators.samples import Sample
from deploy import equalize as stage
from deploy.artifacts.model import Decision, Model
from deploy.equalize import equalize
from deploy.errors import CalibrationError, RecipeError
from deploy.observation.evidence import Evidence
from deploy.surgery.channel_layers import Names, scale_outputs
from deploy.surgery.graph import verified

TEXT = """g (float[N,3,6,8] x) => (float[N,2,6,8] y) {
    a = Conv(x, w1, b1) r = Relu(a) b = Conv(r, w2) y = Conv(b, w3)
}"""
ALL = ["channel_shifting", "channel_equalization", "activation_centering"]


def model() -> Model:
    weights = {"w1": weight(4, 3, 1, 1), "b1": weight(4), "w2": weight(5, 4, 1, 1)}
    made = model_from(TEXT, {**weights, "w3": weight(2, 5, 1, 1)})
    return Model(verified(made.proto, "m"), "m")


class Counted:
    """Samples that know how often they were read."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples, self.passes = samples, 0

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        self.passes += 1
        return iter(self.samples)


def test_samples_are_read_once_for_all() -> None:
    samples = Counted(samples_for(model()))
    after = equalize(model(), samples, ALL, symmetric=True)
    assert {d.rule for d in after.decisions if d.outcome == "applied"} == set(ALL)
    assert samples.passes == 1


def test_a_clip_in_front_of_a_pool_costs_no_second_pass() -> None:
    text = """g (float[N,3,6,8] x) => (float[N,5,1,1] y) {
        a = Conv(x, w) c = Clip(a, zero, six) p = GlobalAveragePool(c) y = Conv(p, v)
    }"""
    weights = {"w": weight(4, 3, 1, 1), "v": weight(5, 4, 1, 1)}
    made = model_from(text, {**weights, "zero": np.float32(0), "six": np.float32(6)})
    samples = Counted(samples_for(made))
    equalize(made, samples, ALL, symmetric=True)
    assert samples.passes == 1


def test_in_that_order() -> None:
    after = assert_equal(model(), ALL)
    rules = [d.rule for d in after.decisions if d.outcome == "applied"]
    assert sorted(rules, key=ALL.index) == rules


def test_behind_one_that_tells_nothing_all_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[np.ndarray] = []

    def silent(graph: object, evidence: Evidence) -> list[Decision]:
        conv = graph.nodes[0]  # type: ignore[attr-defined]
        seen.append(evidence.ranges(["r"])["r"].high)
        scale_outputs(conv, np.full(4, 2.0), Names(graph))
        return [Decision("equalize", "silent", "applied", "c", "doubled")]

    monkeypatch.setattr(stage.registry, "load", lambda kind, name: silent)
    samples = Counted(samples_for(model()))
    equalize(model(), samples, ["silent", "silent"], symmetric=True)
    np.testing.assert_allclose(seen[1], 2 * seen[0], rtol=1e-6)
    assert samples.passes == 2


def test_nothing_to_do_is_the_same_model() -> None:
    after = equalize(model(), [], [], symmetric=True)
    assert after.sha256 == model().sha256
    assert after.decisions == ()


def test_evidence_follows_what_it_is_told() -> None:
    evidence = Evidence(model(), samples_for(model()))
    before = evidence.ranges(["a"])["a"]
    factors, constants = np.arange(1.0, 5), np.arange(4.0)
    evidence.scaled({"a": factors, "r": factors})
    evidence.shifted({"a": constants})
    after = evidence.ranges(["a", "r"])
    np.testing.assert_allclose(after["a"].low, before.low * factors + constants, rtol=1e-6)
    # measured only now, from the model as it was
    fresh = Evidence(model(), samples_for(model())).ranges(["r"])["r"]
    np.testing.assert_allclose(after["r"].high, fresh.high * factors, rtol=1e-6)
    assert evidence.told == 3


def test_evidence_gives_out_some_of_the_samples() -> None:
    held = samples_for(model(), 6)
    assert [s.name for s in Evidence(model(), held).some(3)] == ["s0", "s2", "s4"]
    assert len(Evidence(model(), iter(held)).some(9)) == 6

    class Set(list[Sample]):
        def spread(self, count: int) -> list[Sample]:
            return self[:count]

    assert [s.name for s in Evidence(model(), Set(held)).some(2)] == ["s0", "s1"]


def test_bad_samples_and_names_are_told() -> None:
    with pytest.raises(CalibrationError, match="no samples"):
        equalize(model(), [], ALL, symmetric=True)
    bad = [Sample("bad", {"x": np.full((1, 3, 6, 8), np.nan, np.float32)})]
    with pytest.raises(CalibrationError, match="NaN or Inf on sample bad"):
        equalize(model(), bad, ALL, symmetric=True)
    with pytest.raises(RecipeError, match="unknown equalization 'channel_shiftin'"):
        equalize(model(), [], ["channel_shiftin"], symmetric=True)


def test_integers_on_the_way_are_not_measured() -> None:
    """A model with Q/DQ inside: what a Concat joins as int8 has no range to ask for."""
    text = """g (float[N,3,4,6] x) => (int8[N,6,4,6] z, float[N,2,4,6] y) {
        q = QuantizeLinear(x, scale, zero) z = Concat<axis = 1>(q, q) y = Conv(x, w)
    }"""
    weights = {"scale": np.float32(0.05), "zero": np.int8(0), "w": weight(2, 3, 1, 1)}
    made = model_from(text, weights)
    after = equalize(made, samples_for(made), [*ALL, "smooth_quant"], symmetric=True)
    assert {d.subject for d in after.decisions if d.rule == "smooth_quant"} == {"x"}
