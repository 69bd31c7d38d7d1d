"""FP8 from ranges to the graph that is sent: Q/DQ in float8, float16 around it, and its noise."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from pydantic import ValidationError
from tiny_models import model, node, normal, ranges_of, samples_of

from calibrators.float8 import float8_weight
from deploy.analysis.layer_cost import layer_costs
from deploy.analysis.roofline import own_precision
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.errors import CalibrationError, RecipeError
from deploy.floats.float8 import FLOAT8
from deploy.floats.half_float8 import half_float8
from deploy.ladder.expected_noise import noisy
from deploy.metrics import Error
from deploy.nvidia.dialect import as_shipped
from deploy.placement import Exclude
from deploy.precisions import quantized_as
from deploy.quantize import quantize
from deploy.rounding_bound import rounding_bound
from deploy.sensitivity.alone import sensitivity
from deploy.target import Target, offered

H100 = quantized_as(Target.load("h100"), "fp8")


def network(scale: float = 0.3) -> Model:
    """conv -> relu -> depthwise -> conv -> + -> relu -> pool -> gemm; the depthwise has no FP8."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "wd"], ["d"], name="depthwise", pads=[1, 1, 1, 1], group=16),
        node("Conv", ["d", "w2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        node("Add", ["r1", "c2"], ["s"], name="add"),
        node("Relu", ["s"], ["r2"], name="relu2"),
        node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    weights = {
        "w1": normal(16, 16, 3, 3, seed=1, scale=scale),
        "b1": normal(16, seed=2),
        "wd": normal(16, 1, 3, 3, seed=6),
        "w2": normal(16, 16, 3, 3, seed=3, scale=0.1),
        "w3": normal(24, 16, seed=4),
        "b3": normal(24, seed=5),
    }
    return model(nodes, {"x": [1, 16, 6, 8]}, {"y": [1, 24]}, weights)


def written(exact: Model) -> Model:
    return quantize(exact, ranges_of(exact), H100)


def error_between(left: Model, right: Model) -> Error:
    error = Error()
    with reference.build(left) as one, reference.build(right) as other:
        for sample in samples_of(left, 8):
            error.add(one.run(sample.feeds)["y"], other.run(sample.feeds)["y"])
    return error


def types_of(found: Model) -> dict[str, int]:
    """The element type of every value."""
    inferred = onnx.shape_inference.infer_shapes(found.proto).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    return types | {w.name: w.data_type for w in inferred.initializer}


class TestQuantize:
    def test_what_has_kernels_reads_float8(self) -> None:
        made = written(network())
        types = types_of(made)
        quantizers = {n.input[0]: n for n in made.proto.graph.node if n.op_type == "QuantizeLinear"}
        assert set(quantizers) == {"x", "d", "r1", "f"}
        assert {types[n.output[0]] for n in quantizers.values()} == {FLOAT8}
        assert made.opset >= 19 and made.proto.ir_version >= 9
        kept = {d.subject for d in made.decisions if d.outcome == "skipped"}
        assert kept == {"depthwise"}

    def test_scales_come_from_the_ranges(self) -> None:
        exact = network()
        made, ranges = written(exact), ranges_of(exact)
        stored = {w.name: w for w in made.proto.graph.initializer}
        for found in made.proto.graph.node:
            if found.op_type == "QuantizeLinear":
                span = ranges.tensors[found.input[0]].range
                scale = float(numpy_helper.to_array(stored[found.input[1]]))
                assert scale == pytest.approx(max(-span.low, span.high) / 448, rel=1e-3)

    def test_weights_are_stored_in_float8_per_output_channel(self) -> None:
        exact = network()
        made = written(exact)
        stored = {w.name: w for w in made.proto.graph.initializer}
        (values,) = (w for w in stored.values() if w.name == "w2/float8e4m3fn")
        assert values.data_type == FLOAT8
        floats = next(w for w in exact.proto.graph.initializer if w.name == "w2")
        weights = numpy_helper.to_array(floats)
        expected = float8_weight(weights, 0)
        found = numpy_helper.to_array(values).astype(np.float32)
        np.testing.assert_array_equal(found, expected.quantize(weights))

    def test_the_numbers_are_near_and_not_equal(self) -> None:
        exact = network()
        assert 20 < error_between(exact, written(exact)).sqnr_db < 40

    def test_a_sum_goes_with_its_convolution(self) -> None:
        exact = network()
        kept = Exclude(kinds={"Conv": "matrix products alone"})
        made = quantize(exact, ranges_of(exact), H100, exclude=kept)
        found = [n.input[0] for n in made.proto.graph.node if n.op_type == "QuantizeLinear"]
        assert found == ["f"]

    def test_an_opset_that_cannot_be_raised_is_refused(self) -> None:
        exact = network()
        proto = onnx.ModelProto()
        proto.CopyFrom(exact.proto)
        proto.functions.add(name="f", domain="mine")
        old = Model(proto, "old")
        with pytest.raises(CalibrationError, match="fp8 needs opset 19"):
            quantize(old, ranges_of(old), H100)

    def test_each_layer_alone_is_measured(self) -> None:
        exact = network()
        found = sensitivity(exact, ranges_of(exact), H100, samples_of(exact, 8))
        assert {row.layer for row in found.layers} == {"conv1", "conv2", "add", "head"}
        assert all(-60 < row.noise_db < -15 for row in found.layers)


class TestFloat16Around:
    def test_all_but_the_ends_is_float16(self) -> None:
        made = half_float8(written(network()))
        types = types_of(made)
        assert types["x"] == types["y"] == TensorProto.FLOAT
        for found in made.proto.graph.node:
            if found.op_type in ("Conv", "Gemm"):
                assert {types[name] for name in found.input} == {TensorProto.FLOAT16}
            if found.op_type in ("QuantizeLinear", "DequantizeLinear"):
                assert types[found.input[1]] == TensorProto.FLOAT16
        assert sum(n.op_type == "Cast" for n in made.proto.graph.node) == 2

    def test_it_costs_what_float16_costs(self) -> None:
        plain = written(network())
        assert error_between(plain, half_float8(plain)).sqnr_db > 40

    def test_a_layer_that_float16_cannot_hold_keeps_its_pairs_in_float32(self) -> None:
        made = half_float8(written(network(scale=3e5)))
        types = types_of(made)
        conv = next(n for n in made.proto.graph.node if n.name == "conv1")
        assert {types[name] for name in conv.input} == {TensorProto.FLOAT}
        told = {d.subject: d.reason for d in made.decisions if d.outcome == "skipped"}
        assert "conv1" in told and "too near float16's 65504" in told["depthwise"]
        assert np.isfinite(error_between(network(scale=3e5), made).noise)

    def test_it_is_what_is_sent(self) -> None:
        sent = as_shipped(written(network()), H100, "fp8")
        assert FLOAT8 in types_of(sent).values() and TensorProto.FLOAT16 in types_of(sent).values()


class TestNoise:
    def test_a_sound_graph_is_as_noisy_as_expected(self) -> None:
        exact = network()
        made = written(exact)
        with reference.build_observer(exact, ["x", "d", "r1", "f"]) as engine:
            values = [{**s.feeds, **engine.run(s.feeds)} for s in samples_of(exact, 2)]
        expected = noisy(exact, made, values, ranges_of(exact))
        assert expected is not None
        gap = error_between(exact, expected).sqnr_db - error_between(exact, made).sqnr_db
        assert abs(gap) < 3

    def test_a_step_costs_somewhat_more_than_rounding(self) -> None:
        exact = network()
        made = half_float8(written(exact))
        found = rounding_bound(made, samples_of(exact, 8))["y"]
        lost = error_between(exact, made).sqnr_db
        assert lost - 12 < found < lost + 3


class TestTargets:
    def test_layers_count_as_fp8(self) -> None:
        assert own_precision(layer_costs(written(network()))) == "fp8"

    @pytest.mark.parametrize("name", ["h100", "h200", "l4", "thor", "rtx40", "rtx50"])
    def test_who_has_it(self, name: str) -> None:
        target = Target.load(name)
        assert offered(target, "fp8") == "fp8"
        assert target.engine.nvidia is not None and target.engine.nvidia.sm >= 89

    @pytest.mark.parametrize("name", ["xavier", "t4", "orin", "a100", "rtx30", "cpu"])
    def test_who_does_not(self, name: str) -> None:
        with pytest.raises(RecipeError, match="fp8 is not offered"):
            offered(Target.load(name), "fp8")

    def test_int8_is_as_it_was(self) -> None:
        plain = Target.load("h100")
        assert quantized_as(plain, "int8") is plain

    @pytest.mark.parametrize(
        "change, reason",
        [
            ({"float8": None}, "fp8 and no \\[float8\\]"),
            ({"engine": {"nvidia": {"typing": "weak"}}}, "only a strongly typed NVIDIA target"),
            (
                {
                    "quantization": {
                        "form": "implicit",
                        "activation_dtype": "int8",
                        "activation_symmetric": True,
                    }
                },
                "only a strongly typed NVIDIA target",
            ),
        ],
    )
    def test_a_target_that_could_not_use_it(self, change: dict[str, object], reason: str) -> None:
        table = Target.load("h100").model_dump()
        for key, value in change.items():
            if key == "engine":
                table["engine"]["nvidia"]["typing"] = "weak"
            else:
                table[key] = value
        with pytest.raises(ValidationError, match=reason):
            Target.model_validate(table)
