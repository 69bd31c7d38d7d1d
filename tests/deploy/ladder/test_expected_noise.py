"""What rounding costs is foretold from the float graph, whatever the judged graph's scales are."""

from __future__ import annotations

import pytest
from ladder_faults import broken, pair_changed
from tiny_models import quantized, ranges_of, residual, samples_of

from deploy.artifacts.model import Model
from deploy.ladder.expected_noise import noisy
from deploy.ladder.first_fault import Pair
from deploy.ladder.noisy_fault import NoisyPair
from deploy.ladder.tensors import observable, runs_of


def noisy_pair(after: Model, count: int = 6) -> NoisyPair:
    before = residual()
    exact = observable(before)
    two = Pair.of(exact, observable(after), runs_of(exact, samples_of(before, count)))
    return NoisyPair(two, ranges_of(before))


@pytest.mark.parametrize(
    "form",
    [{}, {"weight_form": "fp32"}, {"activation_dtype": "int8", "activation_symmetric": True}],
    ids=["stored", "W -> Q -> DQ", "symmetric"],
)
def test_is_near_what_is_lost(form: dict[str, object]) -> None:
    found = noisy_pair(quantized(residual(), **form))
    observed_db, predicted = found.output_db()
    assert observed_db == pytest.approx(predicted, abs=4)
    for name, error in found.local.items():
        assert error.sqnr_db > found.expected_db(name)
    assert found.culprits() == ()


def test_seven_bits_are_not_taken_for_eight() -> None:
    eight, seven = (noisy_pair(quantized(residual(), weight_bits=bits)) for bits in (8, 7))
    assert seven.predicted_db("y") < eight.predicted_db("y") - 1
    assert seven.culprits() == ()


def test_does_not_follow_a_wrong_scale() -> None:
    sound = quantized(residual())
    wrong = broken(sound, "c2", pair_changed(lambda x: x * 2, 1, 0))
    right, judged = noisy_pair(sound), noisy_pair(wrong)
    assert judged.predicted_db("y") == pytest.approx(right.predicted_db("y"), abs=1)
    assert [c.node for c in judged.culprits()] == ["conv2"]
    assert "rounding it and its weights" in judged.culprits()[0].why


def test_a_float_graph_has_none() -> None:
    model = observable(residual())
    assert noisy(model, model, [], None) is None
