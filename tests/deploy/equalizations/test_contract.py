"""What every equalization must do: keep the function, say what it changed, and repeat itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from conv_graphs import conv_graphs
from equalized import Enough, applied, assert_equal, samples_for
from helpers import model_from, weight
from hypothesis import HealthCheck, given, settings
from networks import NETWORKS, network
from random_graphs import COMPUTED, RandomGraph, random_graphs

from deploy import registry
from deploy.artifacts.model import Model
from deploy.equalize import equalize
from deploy.errors import CalibrationError
from deploy.fuse import fuse
from deploy.load import load
from deploy.observation.evidence import Evidence
from deploy.simplify import simplify
from deploy.surgery.channel_shifts import int8_places
from deploy.surgery.graph import to_graph, to_model, verified
from deploy.target import Target

NAMES = registry.names("equalization")
# as targets name them
ALL = [
    "channel_shifting",
    "channel_equalization",
    "activation_centering",
    "smooth_quant",
    "padded_centering",
]


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def fused(name: str, **style: object) -> Model:
    """That network as the line has it when it equalizes, small."""
    proto = network(name, image=(64, 32), width=0.25, depth=0.4, classes=7, **style)
    return fuse(simplify(load(Model(proto, name))), Target.load("cpu").fusions)


def tokens() -> Model:
    """LayerNormalization with outlier channels in front of a MatMul of tokens."""
    gamma = np.ones(16, np.float32)
    gamma[3] = 40
    text = """g (float[N,6,16] x) => (float[N,6,9] y) {
        n = LayerNormalization(x, gamma, beta)
        y = MatMul(n, w)
    }"""
    values = {"gamma": gamma, "beta": weight(16, seed=2), "w": weight(16, 9, seed=3)}
    return model_from(text, values)


def shown(name: str) -> Model:
    """A model on which that equalization has something to do."""
    return tokens() if name.startswith("smooth_quant") else fused("mobilenet_v2")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same(name: str) -> None:
    model = fused(name)
    after = assert_equal(model, ALL, samples=samples_for(model, 2))
    assert {"channel_equalization"} <= {d.rule for d in applied(after)}


@examples(150)
@given(proto=conv_graphs())
def test_a_random_convolutional_network_computes_the_same(proto: onnx.ModelProto) -> None:
    # Abs, Max and Clip near zero let round-off through, and a sum may nearly cancel
    assert_equal(Model(proto, "random"), ALL, tolerance=1e-4)


@examples(100)
@given(graph=random_graphs(["computes", "channels", "copies"]))
def test_any_graph_computes_the_same(graph: RandomGraph) -> None:
    if max(graph.noise.values()) > COMPUTED:
        return  # half-precision steps: round-off decides which one is taken
    try:
        assert_equal(Model(graph.model, "random"), ALL, tolerance=2e-5)
    except CalibrationError as error:
        assert "NaN or Inf" in str(error)


def ranges_of(model: Model, names: list[str]) -> dict[str, np.ndarray]:
    model = model.derive(verified(model.proto, model.name), ())
    seen = Evidence(model, samples_for(model, 2)).ranges(names)
    return {name: np.stack([r.low, r.high]) for name, r in seen.items()}


@pytest.mark.parametrize("network_name", ["mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize("name", NAMES)
def test_what_it_says_about_tensors_is_what_they_hold(name: str, network_name: str) -> None:
    """Evidence measured before and carried on equals evidence measured on the new graph."""
    model = fused(network_name)
    graph = to_graph(model)
    made = [node.outputs[0].name for node in graph.nodes if node.op == "Conv"]
    places = [*int8_places(graph), *made]
    evidence = Evidence(model, samples_for(model, 2), symmetric=True, also=places)
    decisions = registry.load("equalization", name)(graph, evidence)
    if any(d.outcome == "applied" for d in decisions) and not evidence.told:
        pytest.skip(f"{name} tells nothing: everything is measured anew behind it")
    after = to_model(graph, model, decisions)
    told, measured = evidence.ranges(places), ranges_of(after, places)
    assert sorted(told) == sorted(measured)
    for place, ends in measured.items():
        expected = np.stack([told[place].low, told[place].high])
        size = np.abs(expected).max()
        np.testing.assert_allclose(ends, expected, rtol=1e-4, atol=2e-5 * size, err_msg=place)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_did(name: str) -> None:
    model = shown(name)
    after = equalize(model, samples_for(model), [name], symmetric=True)
    assert applied(after)
    nodes = model.proto.graph.node
    names = {label for node in nodes for label in (node.name, *node.output)}
    for decision in after.decisions:
        assert (decision.stage, decision.rule) == ("equalize", name)
        assert decision.outcome in ("applied", "skipped")
        assert decision.subject in names
        assert decision.reason and "\n" not in decision.reason


@pytest.mark.parametrize("name", NAMES)
def test_the_same_samples_give_the_same_bytes(name: str) -> None:
    model = shown(name)
    samples = samples_for(model)
    first = equalize(model, samples, [name], symmetric=True)
    again = equalize(model, Enough(samples[::-1]), [name], symmetric=True)
    assert first.sha256 == again.sha256
    assert first.sha256 != model.sha256


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_function_alone_and_behind_all_others(name: str) -> None:
    assert_equal(shown(name), [name])
    assert_equal(shown(name), [*ALL, name, *ALL])


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_without_layers_is_left_as_it_is(name: str) -> None:
    model = model_from("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    after = equalize(model, samples_for(model), [name], symmetric=True)
    assert after.sha256 == model.sha256
    assert not after.decisions
