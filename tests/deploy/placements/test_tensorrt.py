"""Where TensorRT's Q/DQ goes: NVIDIA's rules, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from dialects import dialect, parsed
from tiny_models import model, node, normal, ranges_of, residual

from deploy import registry
from deploy.artifacts.model import Model
from deploy.placement import Exclude, Placement, without
from deploy.placements.tensorrt import tensorrt
from deploy.quantize import quantize
from deploy.surgery.graph import label, to_graph

FUSIONS = ("hoist_quantize", "sink_dequantize", "cancel_dequantize_quantize")
MAP = ["N", 4, 6, 8]


def placed(network: Model) -> Placement:
    return tensorrt(to_graph(network))


def inputs(network: Model) -> list[tuple[str, str]]:
    """What is quantized in front of what."""
    return [(a.tensor.name, label(a.node)) for a in placed(network).activations]


def maps(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, np.ndarray] | None = None) -> Model:
    """Nodes between x and y, float maps of 4 channels; w is a 1x1 convolution's."""
    given = {"w": normal(4, 4, 1, 1, scale=0.4), **(weights or {})}
    return model(nodes, {"x": MAP}, {"y": MAP}, given)


def conv(source: str, result: str, name: str) -> onnx.NodeProto:
    return node("Conv", [source, "w"], [result], name=name)


def test_is_found_by_its_name() -> None:
    assert registry.load("placement", "tensorrt") is tensorrt


def test_only_the_skip_input_of_a_sum() -> None:
    # r1 skips; c2 is what the second convolution adds to
    assert inputs(residual()) == [("x", "conv1"), ("r1", "conv2"), ("r1", "add"), ("f", "head")]


def test_of_two_convolutions_the_later_takes_the_sum() -> None:
    network = maps(
        [
            conv("x", "a", "main"),
            conv("x", "b", "shortcut"),
            node("Add", ["b", "a"], ["s"], name="add"),
            node("Relu", ["s"], ["y"]),
        ]
    )
    assert [pair for pair in inputs(network) if pair[1] == "add"] == [("b", "add")]


def test_through_a_batch_normalization() -> None:
    statistics = {n: np.abs(normal(4, seed=i)) for i, n in enumerate(("g", "o", "m", "v"))}
    network = maps(
        [
            conv("x", "c", "conv"),
            node("BatchNormalization", ["c", "g", "o", "m", "v"], ["n"]),
            node("Add", ["n", "x"], ["y"], name="add"),
        ],
        statistics,
    )
    assert inputs(network) == [("x", "conv"), ("x", "add")]
    # nothing between convolution, BatchNormalization and sum
    made = parsed(quantize(network, ranges_of(network), dialect("tensorrt")))
    assert made.activations.keys() == {"x"}


@pytest.mark.parametrize("again", ["Sigmoid", "Conv"])
def test_a_convolution_that_others_read_too_takes_no_sum(again: str) -> None:
    more = conv("c", "z", "z") if again == "Conv" else node("Sigmoid", ["c"], ["z"])
    network = maps(
        [
            conv("x", "c", "conv"),
            more,
            node("Add", ["x", "c"], ["s"], name="add"),
            node("Mul", ["s", "z"], ["y"]),
        ]
    )
    assert [pair for pair in inputs(network) if pair[1] == "add"] == [("x", "add"), ("c", "add")]


def test_a_sum_without_convolution_reads_both() -> None:
    network = maps(
        [
            node("Relu", ["x"], ["a"]),
            node("Sigmoid", ["x"], ["b"]),
            node("Add", ["a", "b"], ["s"], name="add"),
            conv("s", "y", "conv"),
        ]
    )
    assert inputs(network) == [("a", "add"), ("b", "add"), ("s", "conv")]


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_a_pad_of_a_constant_moves_integers(mode: str) -> None:
    constants = {
        "amounts": np.array([0, 0, 1, 0, 0, 0, 2, 1]),
        "value": np.float32(-0.25),
        "v": normal(4, 4, 4, 2),
    }
    read = ["x", "amounts", *(["value"] if mode == "constant" else [])]
    pad = node("Pad", read, ["p"], mode=mode)
    network = maps([pad, node("Conv", ["p", "v"], ["y"], name="conv")], constants)
    moved = [("x", "Pad -> p")] if mode == "constant" else []
    assert inputs(network) == [("p", "conv"), *moved]
    made = parsed(quantize(network, ranges_of(network), dialect("tensorrt"))).activations
    assert mode == "reflect" or made["x"].scale == made["p"].scale
    # the Pad goes where its layer goes
    kept = without(placed(network), Exclude(layers={"conv": "asked for"}))
    assert not kept.activations


class TestConcat:
    network = maps(
        [
            conv("x", "a", "left"),
            node("Relu", ["x"], ["b"]),
            node("Concat", ["a", "b"], ["j"], axis=1, name="join"),
            node("MaxPool", ["j"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Conv", ["p", "w8"], ["k"], name="mix"),
            conv("a", "t", "top"),
            node("Sigmoid", ["t"], ["u"]),
            node("Mul", ["k", "u"], ["y"]),
        ],
        {"w8": normal(4, 8, 1, 1)},
    )

    def test_inputs_share_a_scale(self) -> None:
        (group,) = placed(self.network).shared
        assert group.tensors == ("p", "a")
        ranges = ranges_of(self.network)
        made = quantize(self.network, ranges, dialect("tensorrt"))
        found = parsed(made).activations
        both = [ranges.tensors[name].range for name in ("p", "a")]
        amax = max(max(-r.low, r.high) for r in both)
        assert found["p"].scale == found["a"].scale == np.float32(amax / 127)
        reason = next(d.reason for d in made.decisions if d.subject == "a")
        assert reason.endswith("; one scale with 'p': they hold the same values, and move as INT8")

    def test_so_that_it_runs_in_int8(self) -> None:
        target = dialect("tensorrt").model_copy(update={"quantized_fusions": FUSIONS})
        made = quantize(self.network, ranges_of(self.network), target).proto
        types = {v.name: v.type.tensor_type.elem_type for v in made.graph.value_info}
        (join,) = [n for n in made.graph.node if n.op_type == "Concat"]
        assert {types[name] for name in (*join.input, *join.output)} == {onnx.TensorProto.INT8}


class TestPools:
    def pooled(self, op: str, *, beside: bool, behind: bool) -> Model:
        attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} if op == "AveragePool" else {}
        pool = node(op, ["a"], ["p"], name="pool", **attributes)
        return maps(
            [
                node("Relu", ["x"], ["a"]),
                conv("a", "b", "beside") if beside else node("Sigmoid", ["a"], ["b"]),
                pool,
                conv("p", "c", "behind") if behind else node("Sigmoid", ["p"], ["c"]),
                node("Mul", ["b", "c"], ["y"]),
            ]
        )

    @pytest.mark.parametrize("op", ["AveragePool", "GlobalAveragePool"])
    def test_between_integers_it_reads_integers(self, op: str) -> None:
        assert ("a", "pool") in inputs(self.pooled(op, beside=True, behind=True))

    def test_it_goes_with_the_layer_behind(self) -> None:
        found = placed(self.pooled("AveragePool", beside=True, behind=True))
        left = without(found, Exclude(layers={"behind": "noisy"}))
        assert [label(n) for n in left.layers] == ["beside"]
        assert [(d.subject, d.reason) for d in left.skipped] == [
            ("behind", "noisy"),
            ("pool", "'p' stays float, and without it INT8 here gains nothing"),
        ]
        kept = without(found, Exclude(layers={"beside": "noisy"}))
        assert [label(n) for n in kept.layers] == ["behind", "pool"]

    @pytest.mark.parametrize(("beside", "behind"), [(True, False), (False, True)])
    def test_elsewhere_it_stays_float(self, beside: bool, behind: bool) -> None:
        network = self.pooled("AveragePool", beside=beside, behind=behind)
        assert ("a", "pool") not in inputs(network)


def test_what_is_emitted_has_no_zero_point_and_one_scale_per_tensor() -> None:
    network = residual()
    for name in ("tensorrt", "tensorrt_8_5"):
        made = parsed(quantize(network, ranges_of(network), dialect(name)))
        for params in made.activations.values():
            assert params.zero_point.dtype == np.int8 and params.zero_point == 0
            assert params.scale.shape == () and params.scale > 0
        assert {scales.shape for _, scales in made.weights.values()} == {(4,), (5,)}


def test_8_5_keeps_its_weights_in_float32_in_front_of_a_pair() -> None:
    network = residual()
    made = quantize(network, ranges_of(network), dialect("tensorrt_8_5"))
    nodes = {name: n for n in made.proto.graph.node for name in n.output}
    conv1 = next(n for n in made.proto.graph.node if n.name == "conv1")
    dequantize = nodes[conv1.input[1]]
    quantizer = nodes[dequantize.input[0]]
    assert (dequantize.op_type, quantizer.op_type) == ("DequantizeLinear", "QuantizeLinear")
    stored = {i.name: i for i in made.proto.graph.initializer}
    assert stored[quantizer.input[0]].data_type == onnx.TensorProto.FLOAT
    assert [a.i for n in (quantizer, dequantize) for a in n.attribute if a.name == "axis"] == [0, 0]


def test_a_layer_that_stays_float_says_why() -> None:
    network = model(
        [node("MatMul", ["x", "x2"], ["y"], name="scores")],
        {"x": ["N", 5, 4], "x2": ["N", 4, 5]},
        {"y": ["N", 5, 5]},
    )
    (decision,) = placed(network).skipped
    assert (decision.rule, decision.subject) == ("tensorrt", "scores")
    assert "no weights to quantize" in decision.reason
