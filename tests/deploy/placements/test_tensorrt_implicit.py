"""What runs in INT8 by a calibration cache, and which ranges have to be equal there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from dialects import dialect, parsed
from tiny_models import model, node, normal, ranges_of, residual

from calibrators.ranges import Range, activation_params
from deploy import registry
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.nvidia.implicit import implicit
from deploy.placement import Placement
from deploy.placements.tensorrt_implicit import tensorrt_implicit
from deploy.quantize import quantize
from deploy.surgery.graph import label, to_graph

MAP = ["N", 4, 6, 8]


def placed(network: Model) -> Placement:
    return tensorrt_implicit(to_graph(network))


def layers(network: Model) -> list[str]:
    return [label(n) for n in placed(network).layers]


def between(*nodes: onnx.NodeProto, source: str = "Conv") -> Model:
    """A convolution (or another source) from x to a, the nodes from a to b, a convolution to y."""
    inputs = ["x", "w"] if source == "Conv" else ["x"]
    ends: Sequence[onnx.NodeProto] = [
        node(source, inputs, ["a"], name="front"),
        *nodes,
        node("Conv", ["b", "w"], ["y"], name="back"),
    ]
    return model(ends, {"x": MAP}, {"y": ["N", 4, "H", "W"]}, {"w": normal(4, 4, 1, 1)})


def pool(op: str) -> onnx.NodeProto:
    attributes = {} if op.startswith("Global") else {"kernel_shape": [3, 3]}
    return node(op, ["a"], ["b"], name="pool", **attributes)


def test_is_found_by_its_name() -> None:
    assert registry.load("placement", "tensorrt_implicit") is tensorrt_implicit


def test_the_inputs_of_a_sum_have_their_own_ranges() -> None:
    network = residual()
    ranges = ranges_of(network)
    scales = implicit(network, ranges, dialect("tensorrt_implicit")).scales
    explicit = parsed(quantize(network, ranges, dialect("tensorrt"))).activations
    assert ranges.tensors["r1"].range != ranges.tensors["c2"].range
    for name in ("r1", "c2"):
        assert scales[name] == activation_params(ranges.tensors[name].range, "int8", True).scale
    for name in explicit.keys() & scales.keys():
        assert scales[name] == explicit[name].scale


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_a_pool_has_one_range(op: str) -> None:
    network = between(pool(op))
    assert layers(network) == ["front", "pool", "back"]
    scales = implicit(network, ranges_of(network), dialect("tensorrt_implicit")).scales
    assert scales["a"] == scales["b"]


def test_a_pool_in_front_of_an_activation_keeps_its_range() -> None:
    network = between(
        node("MaxPool", ["a"], ["p"], name="pool", kernel_shape=[3, 3]),
        node("Relu", ["p"], ["b"], name="relu"),
    )
    ranges = ranges_of(network)
    low = Range(-20.0, 2.0)
    found = ranges.tensors["a"]
    changed = {**ranges.tensors, "a": type(found)(low, found.seen, found.picture)}
    made = implicit(network, Ranges(changed, ranges.source), dialect("tensorrt_implicit"))
    assert made.scales["a"] == made.scales["p"] == np.float32(20 / 127)
    assert made.precisions.keys() == {"*", "front", "pool", "back"}


def test_a_global_average_keeps_its_own_small_range() -> None:
    network = between(pool("GlobalAveragePool"))
    assert layers(network) == ["front", "back"]
    scales = implicit(network, ranges_of(network), dialect("tensorrt_implicit")).scales
    assert scales["a"] > scales["b"]


def test_what_moves_integers_stays_among_them() -> None:
    network = between(node("Transpose", ["a"], ["b"], perm=[0, 1, 3, 2], name="turn"))
    assert layers(network) == ["front", "turn", "back"]


def test_a_pool_of_floats_stays_float() -> None:
    assert layers(between(pool("MaxPool"), source="Sigmoid")) == ["back"]


def test_a_pool_that_the_model_gives_out_stays_float() -> None:
    network = model(
        [
            node("Conv", ["x", "w"], ["a"], name="front"),
            node("MaxPool", ["a"], ["y"], kernel_shape=[3, 3], name="pool"),
        ],
        {"x": MAP},
        {"y": ["N", 4, 4, 6]},
        {"w": normal(4, 4, 1, 1)},
    )
    assert layers(network) == ["front"]


def test_a_pool_with_indices_stays_float() -> None:
    network = between(
        node("MaxPool", ["a"], ["p", "i"], name="pool", kernel_shape=[2, 2]),
        node("Cast", ["i"], ["f"], to=1),
        node("Add", ["p", "f"], ["b"], name="sum"),
    )
    assert layers(network) == ["front", "sum", "back"]


def test_a_pool_that_a_body_reads_stays_float() -> None:
    branch = onnx.helper.make_graph(
        [node("Relu", ["p"], ["r"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("r", 1, ["N", 4, 4, 6])],
    )
    network = model(
        [
            node("Conv", ["x", "w"], ["a"], name="front"),
            node("MaxPool", ["a"], ["p"], name="pool", kernel_shape=[3, 3]),
            node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch),
        ],
        {"x": MAP, "flag": (onnx.TensorProto.BOOL, [])},
        {"y": ["N", 4, 4, 6]},
        {"w": normal(4, 4, 1, 1)},
    )
    assert layers(network) == ["front"]


def test_a_layer_that_stays_float_says_why() -> None:
    network = between(node("Add", ["a", "a"], ["b"], name="shift"))
    (decision,) = placed(network).skipped
    assert (decision.rule, decision.subject) == ("tensorrt_implicit", "shift")
    assert decision.reason == "adds a value to itself"


def test_it_can_be_simulated_with_the_same_scales() -> None:
    network = residual()
    ranges = ranges_of(network)
    told = implicit(network, ranges, dialect("tensorrt_implicit")).scales
    simulated = parsed(quantize(network, ranges, dialect("tensorrt_implicit", form="qdq")))
    assert simulated.activations.keys() == {"x", "r1", "c2", "f"}
    for name, params in simulated.activations.items():
        assert params.scale.tobytes() == np.asarray(told[name]).tobytes()
