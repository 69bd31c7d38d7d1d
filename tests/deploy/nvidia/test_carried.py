"""INT8 beside a float graph, written into the graph's file and read out of it again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from dialects import dialect
from tiny_models import ranges_of, residual

from deploy.artifacts.model import Model, copy_proto
from deploy.errors import BuildError
from deploy.nvidia.carried import carried, told_in
from deploy.nvidia.dialect import as_shipped, for_its_compiler, twin
from deploy.nvidia.host_plan import host_plan
from deploy.nvidia.implicit import Implicit, implicit
from deploy.placement import NOTHING
from deploy.quantize import quantize
from deploy.target import EngineSettings, Target

XAVIER = Target.load("xavier")


def told() -> Implicit:
    network = residual()
    return implicit(network, ranges_of(network), dialect("tensorrt_implicit"))


def test_it_comes_back_as_it_was() -> None:
    given = told()
    found = told_in(carried(given))
    assert found is not None
    assert found.model.serialized == given.model.serialized
    assert found.cache("8.5.2") == given.cache("8.5.2")
    assert found.layer_precisions() == given.layer_precisions()


def test_it_is_the_same_file_every_time_and_another_for_other_scales() -> None:
    given = told()
    assert carried(given).sha256 == carried(told()).sha256
    other = Implicit(given.model, {**given.scales, "x": np.float32(0.5)}, given.precisions)
    assert carried(given).sha256 != carried(other).sha256


def test_other_metadata_stays() -> None:
    given = told()
    proto = copy_proto(given.model.proto)
    proto.metadata_props.add(key="author", value="somebody")
    found = told_in(carried(Implicit(Model(proto, "m"), given.scales, given.precisions)))
    assert found is not None
    assert [row.key for row in found.model.proto.metadata_props] == ["author"]


def test_a_plain_graph_tells_nothing() -> None:
    assert told_in(residual()) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "list"),
        ('{"scales": {}}', "precisions"),
        ('{"scales": {"x": "much"}, "precisions": {"*": "fp16"}}', "much"),
        ('{"scales": {}, "precisions": {"*": "int4"}}', "precision 'int4'"),
        ('{"scales": {}, "precisions": {"conv1": "int8"}}', "no precision for the rest"),
    ],
)
def test_damaged(text: str, reason: str) -> None:
    model = carried(told())
    model.proto.metadata_props[0].value = text
    with pytest.raises(BuildError, match=f"tiny: damaged INT8 description .*{reason}"):
        told_in(model)


class TestOnTheWay:
    """From the quantized graph to what TensorRT is told."""

    def graph(self) -> Model:
        network = residual()
        ranges = ranges_of(network)
        quantized = quantize(network, ranges, twin(XAVIER))
        return for_its_compiler(quantized, network, ranges, XAVIER, NOTHING)

    def test_what_the_compiler_gets_is_float_with_int8_beside_it(self) -> None:
        found = told_in(self.graph())
        assert found is not None
        operators = {node.op_type for node in found.model.proto.graph.node}
        assert not operators & {"QuantizeLinear", "DequantizeLinear"}
        assert found.precisions["conv1"] == "int8"

    def test_a_target_of_qdq_keeps_its_graph(self) -> None:
        orin = Target.load("orin")
        network = residual()
        ranges = ranges_of(network)
        quantized = quantize(network, ranges, orin)
        assert for_its_compiler(quantized, network, ranges, orin, NOTHING) is quantized

    def test_lowering_keeps_it(self) -> None:
        shipped = as_shipped(self.graph(), XAVIER, "int8")
        assert shipped.inputs[0].shape[0] == 1  # the batch that the engine is built for
        found = told_in(shipped)
        assert found is not None and found.precisions["head"] == "int8"

    @pytest.mark.parametrize(
        ("version", "header"), [("8.5.3.1", "TRT-8503"), ("", "TRT-8502"), ("10.3.0", "TRT-100300")]
    )
    def test_the_cache_names_the_tensorrt_that_is_here(self, version: str, header: str) -> None:
        plan = self.plan(XAVIER, version)
        assert plan.cache.startswith(f"{header}-EntropyCalibration2\n")
        assert (plan.quantization, plan.precision, plan.rest) == ("implicit", "int8", "fp16")
        assert plan.layer_precisions["*"] == "fp16" and plan.layer_precisions["add"] == "int8"
        assert plan.scales["x"] == pytest.approx(float(told().scales["x"]))
        assert b"int8_beside" not in plan.model

    @pytest.mark.parametrize(("name", "ranges"), [("xavier", True), ("xavier-dla", False)])
    def test_scales_go_in_as_finish_gives_them(self, name: str, ranges: bool) -> None:
        assert self.plan(Target.load(name), "8.5.2").use_ranges is ranges

    def plan(self, target: Target, version: str) -> Any:
        nvidia = target.engine.nvidia
        assert nvidia is not None
        shipped = as_shipped(self.graph(), target, "int8")
        return host_plan(shipped, target.engine, nvidia, "int8", version)


def test_a_float_build_passes_over_it() -> None:
    """Only INT8 reads it: a float engine of the same file is float."""
    nvidia = XAVIER.engine.nvidia
    assert nvidia is not None
    model = carried(told())
    assert json.loads(model.proto.metadata_props[0].value)["scales"]
    model.proto.metadata_props[0].value = "damaged, and read by nobody"
    assert as_shipped(model, XAVIER, "fp16").inputs[0].shape[0] == 1
    settings = EngineSettings(batch=1, nvidia=nvidia)
    assert host_plan(model, settings, nvidia, "fp16").quantization == "none"
