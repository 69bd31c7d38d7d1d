"""Inf inside a graph, such as an attention mask's: no range, layers at it float, the rest INT8."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import model, node, normal, samples_of, target

from calibrators.samples import Sample
from deploy.analysis.layer_error import layer_errors
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.artifacts.statistics import merged
from deploy.audit.samples import audit
from deploy.calibrate import calibrate, statistics_of
from deploy.errors import CalibrationError
from deploy.ladder.tensors import Difference
from deploy.quantize import quantize
from deploy.recipe import Recipe


def masked(outputs: tuple[str, ...] = ("y",)) -> Model:
    """Causal attention: scores are computed, masked with -Inf, and weigh the values."""
    mask = np.triu(np.full((6, 6), -np.inf, "f4"), 1)
    shapes = {"y": ["N", 6, 8], "m": ["N", 6, 6]}
    return model(
        [
            node("MatMul", ["x", "wq"], ["q"]),
            node("MatMul", ["x", "wk"], ["k"]),
            node("MatMul", ["x", "wv"], ["v"]),
            node("Transpose", ["k"], ["t"], perm=[0, 2, 1]),
            node("MatMul", ["q", "t"], ["s"]),
            node("Add", ["s", "mask"], ["m"]),
            node("Softmax", ["m"], ["p"], axis=-1),
            node("MatMul", ["p", "v"], ["y"]),
        ],
        {"x": ["N", 6, 8]},
        {name: shapes[name] for name in outputs},
        {"mask": mask, **{f"w{n}": normal(8, 8, seed=i) for i, n in enumerate("qkv")}},
    )


def beyond(bias: float = 0.0) -> Model:
    """Inf where x + bias is 0, read by a layer with weights; the outputs are finite."""
    return model(
        [
            node("Add", ["x", "bias"], ["a"]),
            node("Abs", ["a"], ["b"]),
            node("Reciprocal", ["b"], ["r"]),
            node("Conv", ["r", "w1"], ["c"]),
            node("Sigmoid", ["c"], ["g"]),
            node("Conv", ["g", "w2"], ["y"]),
        ],
        {"x": ["N", 1, 4, 5]},
        {"y": ["N", 3, 4, 5]},
        {
            "bias": np.full(1, bias, "f4"),
            "w1": np.ones((2, 1, 1, 1), "f4"),
            "w2": normal(3, 2, 1, 1),
        },
    )


def zeros(count: int) -> list[Sample]:
    """Each second one has a zero."""
    given = samples_of(beyond(), count)
    for sample in given[::2]:
        sample.feeds["x"][0, 0, 2, 1] = 0
    return given


def test_a_mask_leaves_everything_else_its_range() -> None:
    network = masked()
    found = calibrate(network, samples_of(network, 5), "minmax")
    assert found.infinite == {"m": 5}
    assert set(found.tensors) == {"x", "q", "k", "t", "v", "s", "p", "y"}
    made = quantize(network, found, target())
    assert sum(n.op_type == "DequantizeLinear" for n in made.proto.graph.node) == 4
    rows = layer_errors(network, made, samples_of(network, 3))
    assert min(row.sqnr_db for row in rows) > 20


def test_layers_at_it_stay_float_with_the_reason() -> None:
    found = calibrate(beyond(), zeros(6), "entropy")
    # the convolution's result is Inf as well
    assert found.infinite == {"r": 3, "c": 3}
    made = quantize(beyond(), found, target())
    [reason] = [d.reason for d in made.decisions if d.rule == "exclude"]
    assert reason == "'r' holds Inf on 3 of 6 samples, which no range can cover"
    stored = [n.output[0] for n in made.proto.graph.node if n.op_type == "QuantizeLinear"]
    assert stored == ["g/quantized"]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("size", [1, 3])
def test_shards_and_order_give_the_same_bytes(tmp_path: Path, order: int, size: int) -> None:
    calibrate(beyond(), zeros(7), "auto").save(tmp_path / "whole.json")
    given = zeros(7)[::order]
    parts = [statistics_of(beyond(), given[i::2], "auto", batch_size=size) for i in (0, 1)]
    merged(parts).ranges().save(tmp_path / "parts.json")
    assert (tmp_path / "whole.json").read_bytes() == (tmp_path / "parts.json").read_bytes()
    assert Ranges.load(tmp_path / "parts.json").infinite == {"r": 4, "c": 4}


def test_files_without_it_are_as_before(tmp_path: Path) -> None:
    network = beyond(100.0)
    calibrate(network, samples_of(network, 3), "minmax").save(tmp_path / "r.json")
    assert "infinite" not in json.loads((tmp_path / "r.json").read_text())


def test_an_output_has_to_be_finite() -> None:
    network = masked(("y", "m"))
    with pytest.raises(CalibrationError, match="'m' holds NaN or Inf on sample sample 0"):
        calibrate(network, samples_of(network, 2), "minmax")


def test_nan_is_refused_inside_too() -> None:
    """Which of NaN and a number a maximum gives differs between runtimes."""
    network = model(
        [node("Div", ["x", "x"], ["d"]), node("Max", ["d", "one"], ["y"])],
        {"x": ["N", 4]},
        {"y": ["N", 4]},
        {"one": np.ones(1, "f4")},
    )
    given = samples_of(network, 2)
    given[1].feeds["x"][0, 2] = 0
    with pytest.raises(CalibrationError, match="'d' holds NaN or Inf on sample sample 1"):
        calibrate(network, given, "minmax")


def test_the_audit_goes_on() -> None:
    network = masked()
    assert audit(network, samples_of(network, 5), Recipe()).samples == 5


def test_the_same_inf_is_no_difference_inside() -> None:
    one = np.array([1.0, -np.inf, 2.0], "f4")
    found = Difference()
    found.add(one, np.array([1.0, -np.inf, 2.5], "f4"))
    assert found.sqnr_db == pytest.approx(10 * np.log10(5 / 0.25))
    found.add(one, np.array([1.0, np.inf, 2.0], "f4"))
    assert found.sqnr_db == -200
