"""A plan as an engine, by one path over every version the double has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import plugin_library
from onnx import helper
from planned import (
    LATEST,
    NETWORK,
    RELEASES,
    SAMPLE,
    XAVIER,
    Release,
    explicit_plan,
    float_plan,
    implicit_plan,
    quantized,
)
from tiny_models import model, node

from deploy import registry
from deploy.artifacts.model import Model, copy_proto
from deploy.metrics import sqnr_db
from deploy.on_device.device_error import DeviceError, NoDeviceError
from deploy.on_device.trt_build import build_plan
from deploy.on_device.trt_plan import BuildPlan
from deploy.on_device.trt_run import Runner

releases = pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)


def run(here: Any, engine: bytes) -> np.ndarray:
    with Runner(here.trt, engine) as runner:
        return runner.run(SAMPLE.feeds)["y"]


def expected(network: Model) -> np.ndarray:
    with registry.module("backend", "reference").build(network) as engine:
        found: np.ndarray = engine.run(SAMPLE.feeds)["y"]
        return found


@releases
def test_a_float_network(release: Release) -> None:
    with release.on() as here:
        built = build_plan(here.trt, float_plan(release))
        got = run(here, built.engine)
    assert sqnr_db(expected(NETWORK), got) > 100
    assert built.problems == []
    assert built.seconds > 0
    first = built.layers[0]
    assert (first["name"], first["kind"], first["precision"]) == (
        "conv1 + relu1",
        "Convolution",
        "fp32",
    )
    assert first["fused_from"] == ["conv1", "relu1"]


@releases
def test_explicit_q_dq(release: Release) -> None:
    with release.on() as here:
        built = build_plan(here.trt, explicit_plan(release))
        got = run(here, built.engine)
    assert sqnr_db(expected(quantized()), got) > 60
    assert {row["precision"] for row in built.layers if row["kind"] == "Convolution"} == {"int8"}


@pytest.mark.parametrize("name", ["8.5", "8.6", "10.3", "10.16"])
def test_implicit_int8_and_explicit_are_as_near_to_float(name: str) -> None:
    release = RELEASES[name]
    with release.on() as here:
        implicit = run(here, build_plan(here.trt, implicit_plan(release)).engine)
        explicit = run(here, build_plan(here.trt, explicit_plan(release, rest="fp16")).engine)
    noise = [sqnr_db(expected(NETWORK), y) for y in (implicit, explicit)]
    assert min(noise) > 20
    assert abs(noise[0] - noise[1]) < 6


class TestRefused:
    def test_what_the_parser_does_not_know(self) -> None:
        made = model(
            [node("Mish", ["x"], ["y"], name="odd")], {"x": [1, 4]}, {"y": [1, 4]}, opset=18
        )
        proto = copy_proto(made.proto)
        proto.opset_import[0].version = 17
        reason = r"TensorRT 8\.5\.2 can't read the model: node 0: No importer .* Mish.*differently"
        with XAVIER.on() as here, pytest.raises(DeviceError, match=reason):
            build_plan(here.trt, BuildPlan(proto.SerializeToString()))

    def test_later_parsers_name_the_node(self) -> None:
        made = model([node("Neg", ["x"], ["y"], name="odd")], {"x": [1, 4]}, {"y": [1, 4]})
        proto = copy_proto(made.proto)
        proto.graph.node[0].op_type = "Unheard"
        proto.graph.node[0].domain = "of"
        proto.opset_import.append(helper.make_opsetid("of", 1))
        reason = r"node 0 'odd' \(Unheard\): No importer"
        with LATEST.on() as here, pytest.raises(DeviceError, match=reason):
            build_plan(here.trt, BuildPlan(proto.SerializeToString(), typing="strong"))

    def test_bytes_that_are_no_model(self) -> None:
        with (
            XAVIER.on() as here,
            pytest.raises(DeviceError, match="Failed to parse the ONNX model"),
        ):
            build_plan(here.trt, BuildPlan(b"\xff\xff"))

    def test_what_the_builder_refuses(self) -> None:
        """Q/DQ without the INT8 flag: a plan that says fp32."""
        plan = explicit_plan(XAVIER)
        plan.precision = "fp32"
        reason = r"TensorRT 8\.5\.2 can't build the engine: .*int8 is not configured"
        with XAVIER.on() as here, pytest.raises(DeviceError, match=reason):
            build_plan(here.trt, plan)

    def test_no_gpu(self) -> None:
        with (
            XAVIER.on(devices=0) as here,
            pytest.raises(NoDeviceError, match="needs an NVIDIA GPU"),
        ):
            build_plan(here.trt, float_plan(XAVIER))


def test_warnings_are_messages() -> None:
    plan = implicit_plan(XAVIER)
    plan.layer_precisions = {"*": "fp16", "conv1": "int8", "relu1": "int8"}
    plan.scales = {name: plan.scales[name] for name in ("x", "c1", "r1")}
    plan.use_ranges = True
    with XAVIER.on() as here:
        built = build_plan(here.trt, plan)
    assert built.problems == []
    assert [row["name"] for row in built.layers if row["precision"] == "int8"] == ["conv1 + relu1"]


@pytest.mark.parametrize("name", ["8.5", "10.3", "11"])
def test_plugins(name: str, tmp_path: Path) -> None:
    shuffle = node("ChannelShuffle", ["x"], ["y"], name="shuffle", domain="onnx_deploy", groups=2)
    made = model([node("Relu", ["x"], ["y"])], {"x": [1, 4, 2, 3]}, {"y": [1, 4, 2, 3]})
    proto = copy_proto(made.proto)
    proto.graph.node[0].CopyFrom(shuffle)
    proto.opset_import.append(helper.make_opsetid("onnx_deploy", 1))
    release = RELEASES[name]
    plan = BuildPlan(proto.SerializeToString(), typing=release.typing)
    with release.on() as here:
        with pytest.raises(DeviceError, match="Plugin not found"):
            build_plan(here.trt, plan)
        plan.plugin_libraries = [str(plugin_library(tmp_path / "p.so", "ChannelShuffle"))]
        built = build_plan(here.trt, plan)
        x = np.arange(24, dtype="f4").reshape(1, 4, 2, 3)
        with Runner(here.trt, built.engine, plan.plugin_libraries) as runner:
            y = runner.run({"x": x})["y"]
    assert np.array_equal(y, x[:, [0, 2, 1, 3]])


def test_an_engine_for_later_versions_is_read_with_its_own_runtime() -> None:
    plan = float_plan(RELEASES["10.3"], version_compatible=True)
    with RELEASES["10.3"].on() as here:
        engine = build_plan(here.trt, plan).engine
        with pytest.raises(DeviceError, match="engine_host_code_allowed"):
            Runner(here.trt, engine)
        with Runner(here.trt, engine, host_code=True) as runner:
            assert runner.run(SAMPLE.feeds)["y"].shape == (1, 5)
