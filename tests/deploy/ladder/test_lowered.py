"""A rewrite for the compiler, of a Q/DQ graph: round-off is no fault, another value is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from ladder_faults import Build, digits, way_of
from onnx import helper, numpy_helper

from deploy.artifacts.ladder import Rung
from deploy.artifacts.model import Model, copy_proto
from deploy.ladder import climb


@pytest.fixture(scope="module")
def sound() -> Build:
    return digits()


def scaled(model: Model, factor: float) -> Model:
    """What the second convolution reads, times a factor, in front of its Q/DQ."""
    proto = copy_proto(model.proto)
    graph = proto.graph
    stored = {w.name for w in graph.initializer}
    places = [
        i
        for i, node in enumerate(graph.node)
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored
    ]
    node = graph.node[places[1]]
    made = helper.make_node("Mul", [node.input[0], "factor"], ["scaled"], "rewritten")
    node.input[0] = "scaled"
    graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*rest[: places[1]], made, *rest[places[1] :]])
    onnx.checker.check_model(proto)
    return model.derive(proto, ())


def judged(build: Build, factor: float) -> Rung:
    lowered = scaled(build.graphs["quantized"], factor)
    found = climb.ladder(
        way_of(replace(build, graphs={**build.graphs, "lowered": lowered})), build.samples
    )
    return next(rung for rung in found.rungs if rung.name == "lowered")


def test_round_off_that_takes_values_to_the_next_step(sound: Build) -> None:
    rung = judged(sound, 1 + 2e-5)
    assert rung.own_db < 80
    assert rung.passed
    assert "without rounding, and the next step may cost so much" in rung.allowed_why
    # every value a step off
    assert 10 < rung.allowed_db < 45
    assert not rung.culprits


def test_a_wrong_value_shows_without_the_rounding(sound: Build) -> None:
    rung = judged(sound, 1.005)
    assert not rung.passed
    assert "round-off" in rung.allowed_why
    # the first node whose output both graphs have
    assert [culprit.node for culprit in rung.culprits] == ["stem/Relu_out/quantized/QuantizeLinear"]


def test_more_than_a_step_with_it(sound: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a graph can't be had without rounding, there is the bound alone."""
    monkeypatch.setattr(climb, "unrounded", lambda _: None)
    assert judged(sound, 1 + 2e-5).passed
    rung = judged(sound, 4.0)
    assert not rung.passed
    assert rung.allowed_why == "the next step may cost so much"
