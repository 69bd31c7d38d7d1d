"""What every placement promises; a new file in deploy/placements is found by itself."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from tiny_models import model, node, normal

from deploy import registry
from deploy.artifacts.model import Model
from deploy.placement import Exclude, Placement, without
from deploy.surgery.graph import label, to_graph

PLACEMENTS = registry.names("placement")


def rich() -> Model:
    """Depthwise and transposed convolutions, a gate, a split, a sum, attention, integers; as many
    channels as FP8 needs."""
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], name="first"),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "wd"], ["c1"], name="depthwise", group=16, pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c1"], ["p"], name="pool"),
        node("Conv", ["p", "w1"], ["e"], name="gate"),
        node("Sigmoid", ["e"], ["s"]),
        node("Mul", ["c1", "s"], ["m"], name="scale"),
        node("Split", ["m"], ["a", "b"], axis=1, name="split"),
        node("Concat", ["b", "a"], ["j"], axis=1, name="join"),
        node("Add", ["j", "r0"], ["sum"], name="sum"),
        node("ConvTranspose", ["sum", "w2"], ["t"], name="up", strides=[2, 2]),
        node("ArgMax", ["t"], ["y"], axis=1),
        node("MatMul", ["t", "t"], ["scores"], name="scores"),
    ]
    weights = {
        "w0": normal(16, 3, 1, 1),
        "wd": normal(16, 1, 3, 3),
        "w1": normal(16, 16, 1, 1),
        "w2": normal(16, 2, 2, 2),
    }
    inputs = {"x": ["N", 3, 4, 4]}
    outputs = {"y": (7, ["N", 1, 8, 8]), "scores": ["N", 2, 8, 8]}
    return model(nodes, inputs, outputs, weights)


def residual() -> Model:
    """conv -> relu -> conv -> + -> relu -> pool -> gemm, with as many channels as FP8 needs."""
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        node("Add", ["r1", "c2"], ["s"], name="add"),
        node("Relu", ["s"], ["r2"], name="relu2"),
        node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "w3"], ["y"], name="head", transB=1),
    ]
    weights = {
        "w1": normal(16, 3, 3, 3),
        "w2": normal(16, 16, 3, 3),
        "w3": normal(5, 16),
    }
    return model(nodes, {"x": ["N", 3, 6, 8]}, {"y": ["N", 5]}, weights)


def placed(name: str, graph: gs.Graph) -> Placement:
    found = registry.load("placement", name)(graph)
    assert isinstance(found, Placement)
    return found


def picture(graph: gs.Graph) -> list[object]:
    return [
        (n.op, n.name, [t.name for t in n.inputs], [t.name for t in n.outputs], dict(n.attrs))
        for n in graph.nodes
    ]


@pytest.mark.parametrize("name", PLACEMENTS)
@pytest.mark.parametrize("network", [rich, residual], ids=["rich", "residual"])
class TestEveryPlacement:
    def test_it_only_reads(self, name: str, network: object) -> None:
        graph = to_graph(network())
        before = picture(graph)
        placed(name, graph)
        assert picture(graph) == before

    def test_it_is_the_same_again(self, name: str, network: object) -> None:
        one, other = (placed(name, to_graph(network())) for _ in range(2))

        def told(found: Placement) -> list[object]:
            return [
                [(label(a.node), a.index, a.reason, label(a.layer)) for a in found.activations],
                [(label(w.node), w.index, w.axis) for w in found.weights],
                found.skipped,
                found.shared,
            ]

        assert told(one) == told(other)

    def test_activations_are_float32_of_this_graph(self, name: str, network: object) -> None:
        graph = to_graph(network())
        nodes = {id(n) for n in graph.nodes}
        for found in placed(name, graph).activations:
            assert id(found.node) in nodes and id(found.layer) in nodes
            assert found.tensor.dtype == np.float32 and not isinstance(found.tensor, gs.Constant)
            assert found.reason

    def test_a_layer_with_integer_weights_reads_integers(self, name: str, network: object) -> None:
        found = placed(name, to_graph(network()))
        read = {(id(a.layer), id(a.node), a.index) for a in found.activations}
        assert found.weights
        for weight in found.weights:
            assert isinstance(weight.node.inputs[weight.index], gs.Constant)
            assert (id(weight.node), id(weight.node), 0) in read

    def test_every_layer_is_placed_or_told(self, name: str, network: object) -> None:
        graph = to_graph(network())
        found = placed(name, graph)
        told = {label(w.node) for w in found.weights} | {d.subject for d in found.skipped}
        layers = [n for n in graph.nodes if n.op in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
        assert {label(n) for n in layers} <= told
        for decision in found.skipped:
            assert (decision.stage, decision.outcome) == ("quantize", "skipped")
            assert decision.rule == name and decision.reason

    def test_scales_are_shared_among_what_is_quantized(self, name: str, network: object) -> None:
        found = placed(name, to_graph(network()))
        names = {a.tensor.name for a in found.activations}
        for group in found.shared:
            assert len(group.tensors) > 1 and set(group.tensors) <= names and group.reason

    def test_everything_can_be_excluded(self, name: str, network: object) -> None:
        found = placed(name, to_graph(network()))
        layers = found.layers
        left = without(found, Exclude({label(n): "noisy" for n in layers}))
        assert (left.activations, left.weights, left.shared) == ((), (), ())
        assert [(d.subject, d.reason) for d in left.skipped[len(found.skipped) :]] == [
            (label(n), "noisy") for n in layers
        ]
