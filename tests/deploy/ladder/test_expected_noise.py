"""What rounding costs is foretold from the float graph, whatever the judged graph's scales are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ladder_faults import broken, pair_changed
from onnx import helper, numpy_helper
from tiny_models import model, node, normal, quantized, ranges_of, residual, samples_of, target

from calibrators.ranges import Range
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.ladder.expected_noise import Rounded, _clips_soundly, noisy
from deploy.ladder.first_fault import Pair
from deploy.ladder.noisy_fault import NoisyPair
from deploy.ladder.tensors import observable, runs_of
from deploy.quantize import quantize
from deploy.weights.compress import WeightForm, compress


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
    assert observed_db == pytest.approx(predicted, abs=0.5)
    for name, error in found.local.items():
        assert error.sqnr_db > found.expected_db(name)
    assert found.culprits() == ()


def test_seven_bits_are_not_taken_for_eight() -> None:
    eight, seven = (noisy_pair(quantized(residual(), weight_bits=bits)) for bits in (8, 7))
    assert seven.predicted_db("y") < eight.predicted_db("y") - 1
    assert seven.culprits() == ()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_alone_in_few_bits(bits: int, symmetric: bool) -> None:
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "w2"], ["y"]),
    ]
    weights = {"w1": normal(64, 96, seed=1, scale=0.1), "w2": normal(96, 32, seed=2, scale=0.1)}
    before = model(nodes, {"x": ["N", 64]}, {"y": ["N", 32]}, weights)
    form = WeightForm(bits, symmetric, smallest_bytes=64, narrow_ends=True)
    exact, after = observable(before), observable(compress(before, form))
    found = NoisyPair(Pair.of(exact, after, runs_of(exact, samples_of(before, 6))), None)
    observed_db, predicted = found.output_db()
    assert observed_db == pytest.approx(predicted, abs=1.5)
    assert found.culprits() == ()


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


def test_zeros_stay_zeros() -> None:
    """As behind a ReLU: rounding doesn't move them, noise of a step's width would."""
    found = noisy_pair(quantized(residual()))
    rounded = found.rounded
    assert rounded is not None
    ops = [node.op_type for node in rounded.proto.graph.node]
    assert "QuantizeLinear" in ops
    assert not any(op.startswith("Random") for op in ops)


def narrowed(name: str, share: float, **known: float) -> Ranges:
    """The ranges with one that covers a part of what is seen."""
    ranges = ranges_of(residual())
    old = ranges.tensors[name]
    span = Range(old.range.low * share, old.range.high * share)
    return Ranges({**ranges.tensors, name: replace(old, range=span, **known)}, ranges.source)


def test_a_range_that_saturates_is_not_believed() -> None:
    """The graph was made with it, so that its own numbers would say all is well."""
    ranges = narrowed("r1", 0.3)
    before = observable(residual())
    made = observable(quantize(residual(), ranges, target()))
    pair = Pair.of(before, made, runs_of(before, samples_of(residual(), 6)))
    assert "conv2" in [culprit.node for culprit in NoisyPair(pair, ranges).culprits()]
    # what calibration cut off on purpose is its own affair
    meant = narrowed("r1", 0.3, clipped=0.5)
    assert NoisyPair(pair, meant).culprits(only_rounded=True) == ()


def test_few_values_outside_are_no_saturation() -> None:
    x = np.linspace(0, 1, 1000, dtype=np.float32)
    sparse, dense = x.copy(), x.copy()
    sparse[-4:], dense[-6:] = 3.0, 3.0
    step = (1 / 255) ** 2 / 12
    assert _clips_soundly([sparse], (0.0, 1.0), 0.0, step)
    assert not _clips_soundly([dense], (0.0, 1.0), 0.0, step)
    assert _clips_soundly([dense], (0.0, 1.0), 0.01, step)
    # many, but by less than rounding them costs
    assert _clips_soundly([x * 1.001], (0.0, 1.0), 0.0, step)


def test_tensors_of_one_scale_on_purpose_have_the_widest_range() -> None:
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    other = numpy_helper.from_array(np.float32(0.4), "t")
    zero = numpy_helper.from_array(np.uint8(3), "z")
    nodes = [
        helper.make_node("QuantizeLinear", [x, s, "z"], [f"{x}q"])
        for x, s in (("a", "s"), ("b", "s"), ("c", "t"))
    ]
    nodes += [helper.make_node("DequantizeLinear", ["aq", "s", "z"], ["ad"])]
    graph = helper.make_graph(nodes, "g", [], [], [scale, other, zero])
    found = Rounded(Model(helper.make_model(graph), "m", ()))
    assert found.alike(nodes[-1]) == ["a", "b"]


def test_outputs_that_hold_over_all_samples_accuse_no_sound_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The few runs that layers are looked at on may be unlucky ones."""
    found = noisy_pair(quantized(residual()))
    monkeypatch.setattr(NoisyPair, "output_db", lambda self: (20.0, 60.0))
    assert found.culprits(lost=False, only_rounded=True) == ()
    assert len(found.culprits()) == 1
