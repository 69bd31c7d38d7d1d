"""The calibration cache and the precision list, to the byte, and read back."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from dialects import dialect
from tiny_models import model, node, normal, ranges_of, residual, weights_of

from calibrators.ranges import Range
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.errors import CalibrationError, RecipeError
from deploy.nvidia.implicit import (
    Implicit,
    implicit,
    version_number,
)
from deploy.on_device.calibration_cache import cache_scales
from deploy.on_device.finish_plan import listed_precisions
from deploy.placement import Exclude

DLA = dialect("tensorrt_implicit")


def made(network: Model, **changes: object) -> Implicit:
    return implicit(network, ranges_of(network), DLA, **changes)  # type: ignore[arg-type]


def with_range(network: Model, name: str, low: float, high: float) -> Ranges:
    ranges = ranges_of(network)
    found = ranges.tensors[name]
    changed = type(found)(Range(low, high), found.seen, found.picture)
    return Ranges({**ranges.tensors, name: changed}, ranges.source)


class TestCache:
    def test_header_and_one_line_per_tensor_of_int8_layers(self) -> None:
        text = made(residual()).cache("8.5.2")
        header, *lines = text.splitlines()
        assert header == "TRT-8502-EntropyCalibration2"
        # c1 and s lie inside a layer with its Relu, y is what the last layer writes
        names = [line.rpartition(":")[0] for line in lines]
        assert names == ["x", "c1", "r1", "c2", "s", "r2", "f", "y"]
        assert all(re.fullmatch(r"[^:]+: [0-9a-f]{8}", line) for line in lines)
        assert text.endswith("\n")

    def test_digits_are_the_big_endian_scale(self) -> None:
        network = residual()
        found = implicit(network, with_range(network, "x", -1.0, 127.0 / 4), DLA)
        # 0.25 in float32 is sign 0, exponent 125, no fraction
        assert "\nx: 3e800000\n" in found.cache("8.5.2")

    def test_leading_zeros_stay(self) -> None:
        network = residual()
        found = implicit(network, with_range(network, "x", 0.0, 127 * 2.0**-96), DLA)
        assert "\nx: 0f800000\n" in found.cache("8.5.2")

    def test_a_tensor_of_zeros_has_scale_one(self) -> None:
        network = residual()
        found = implicit(network, with_range(network, "x", 0.0, 0.0), DLA)
        assert "\nx: 3f800000\n" in found.cache("8.5.2")

    def test_a_value_inside_a_layer_has_the_scale_of_its_result(self) -> None:
        scales = made(residual()).scales
        assert scales["c1"] == scales["r1"] and scales["s"] == scales["r2"]

    def test_reads_back(self) -> None:
        found = made(residual())
        text = found.cache("10.3.0")
        scales = cache_scales(text)
        assert text.startswith("TRT-100300-EntropyCalibration2\n")
        assert list(scales.items()) == list(found.scales.items())

    def test_names_with_colons_split_at_the_last(self) -> None:
        network = model(
            [node("Conv", ["in:0", "w"], ["conv:0"], name="conv"), node("Relu", ["conv:0"], ["y"])],
            {"in:0": ["N", 3, 5, 7]},
            {"y": ["N", 4, 5, 7]},
            {"w": normal(4, 3, 1, 1)},
        )
        scales = cache_scales(made(network).cache("8.5.2"))
        assert list(scales) == ["in:0", "conv:0", "y"]

    def test_is_the_same_again(self) -> None:
        one, other = made(residual()), made(residual())
        assert one.cache("8.5.2") == other.cache("8.5.2")
        assert one.layer_precisions() == other.layer_precisions()
        assert one.model.serialized == other.model.serialized


class TestVersion:
    @pytest.mark.parametrize(
        ("version", "number"),
        [("8.2.5", 8205), ("8.5.2", 8502), ("8.5.2.2", 8502), ("8.6.0", 8600), ("10.3.0", 100300)],
    )
    def test_as_nvidia_counts(self, version: str, number: int) -> None:
        assert version_number(version) == number

    @pytest.mark.parametrize("version", ["8.5", "", "8.x.1"])
    def test_not_all_of_it(self, version: str) -> None:
        with pytest.raises(
            CalibrationError, match=re.escape(f"version {version!r}; a cache needs")
        ):
            version_number(version)


class TestPrecisions:
    def test_every_int8_layer_with_its_activation_and_the_rest(self) -> None:
        found = made(residual()).layer_precisions()
        assert found == ("*:fp16,conv1:int8,relu1:int8,conv2:int8,add:int8,relu2:int8,head:int8")
        assert listed_precisions(found)["conv2"] == "int8"

    def test_the_rest_in_float32(self) -> None:
        assert made(residual(), rest="fp32").precisions["*"] == "fp32"

    def test_excluded_layers_are_not_listed(self) -> None:
        found = made(residual(), exclude=Exclude(layers={"conv2": "it loses 9 dB"}))
        assert "conv2" not in found.precisions
        reasons = {d.subject: d.reason for d in found.model.decisions}
        assert reasons["conv2"] == "it loses 9 dB"

    def test_layers_without_a_usable_name_get_one(self) -> None:
        network = model(
            [
                node("Conv", ["x", "w"], ["a"]),
                node("Conv", ["a", "v"], ["b"], name="one;two"),
                node("Conv", ["b", "v"], ["c,d"]),
                node("Conv", ["c,d", "v"], ["y"], name="one,two"),
            ],
            {"x": ["N", 3, 5, 7]},
            {"y": ["N", 4, 5, 7]},
            {"w": normal(4, 3, 1, 1), "v": normal(4, 4, 1, 1)},
        )
        found = made(network)
        names = [n.name for n in found.model.proto.graph.node]
        assert names == ["node_of_a", "one;two", "node_of_c;d", "one;two_1"]
        assert list(listed_precisions(found.layer_precisions())) == ["*", *names]

    def test_the_graph_is_the_float_one(self) -> None:
        network = residual()
        found = made(network).model
        assert [n.op_type for n in found.proto.graph.node] == [
            n.op_type for n in network.proto.graph.node
        ]
        for name, values in weights_of(network).items():
            assert np.array_equal(weights_of(found)[name], values)
        assert found.decisions[0].reason.startswith("int8, scale ")


class TestRefused:
    def test_qdq_of_an_implicit_target(self) -> None:
        from deploy.quantize import quantize

        network = residual()
        with pytest.raises(CalibrationError, match="in the form 'implicit', without Q/DQ"):
            quantize(network, ranges_of(network), DLA)

    def test_a_line_break_in_a_name(self) -> None:
        network = model(
            [node("Conv", ["x\ny", "w"], ["z"])],
            {"x\ny": ["N", 3, 5, 7]},
            {"z": ["N", 4, 5, 7]},
            {"w": normal(4, 3, 1, 1)},
        )
        with pytest.raises(CalibrationError, match="has a line break; rename it"):
            made(network)

    def test_an_exclusion_of_nothing(self) -> None:
        with pytest.raises(RecipeError, match=r"no layer 'conv3' .*did you mean 'conv"):
            made(residual(), exclude=Exclude(layers={"conv3": ""}))


def test_a_graph_of_a_newer_opset_comes_back_older() -> None:
    network = residual()
    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    proto.opset_import[0].version = 19
    assert made(Model(proto, "new")).model.opset == 17
