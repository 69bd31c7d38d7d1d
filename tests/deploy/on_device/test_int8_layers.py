from __future__ import annotations

from typing import Any

import pytest

from deploy.on_device.int8_layers import all_float, int8_row
from deploy.on_device.trt_plan import BuildPlan


def layer(name: str, precision: str, kind: str = "CaskConvolution", *nodes: str) -> dict[str, Any]:
    fused = list(nodes) or [name]
    return {
        "name": name,
        "kind": kind,
        "precision": precision,
        "kernel": "k",
        "fused_from": fused,
    }


def test_layers_that_the_list_wants() -> None:
    layers = [
        layer("conv1 + relu1", "int8", "CaskConvolution", "conv1", "relu1"),
        layer("conv2", "fp16"),
        layer("softmax", "fp16", "SoftMax"),
    ]
    row = int8_row(layers, {"*": "fp16", "conv1": "int8", "relu1": "int8", "conv2": "int8"})
    assert row == {
        "layers_int8": 1,
        "layers_float": 2,
        "not_int8": [{"name": "conv2", "reason": "TensorRT chose fp16, kernel k"}],
    }


def test_without_a_list_layers_with_weights_are_meant() -> None:
    layers = [layer("a", "fp32"), layer("b", "fp32", "PointWise"), layer("c", "", "gemm")]
    missed = int8_row(layers, {})["not_int8"]
    assert [row["name"] for row in missed] == ["a", "c"]
    assert missed[1]["reason"] == "TensorRT doesn't tell its type"


def test_tensorrts_own_words_about_that_layer() -> None:
    messages = ["Missing scale for tensor conv10_out", "Missing scale for  tensor conv1, so"]
    (row,) = int8_row([layer("conv1", "fp16")], {"conv1": "int8"}, messages)["not_int8"]
    assert row["reason"] == "Missing scale for tensor conv1, so"


class TestAllFloat:
    """INT8 that TensorRT passed over altogether is no INT8 engine."""

    LAYERS = (layer("a", "fp16"), layer("b", "fp32"), layer("c", ""))

    def plan(self, **changes: Any) -> BuildPlan:
        fields = {"precision": "int8", "quantization": "implicit", **changes}
        return BuildPlan(b"", **fields)

    def test_it_is_said(self) -> None:
        (said,) = all_float(self.plan(), self.LAYERS)
        assert said == "no layer runs in INT8, which this engine is for: all are fp16, fp32"

    def test_one_layer_is_enough(self) -> None:
        assert all_float(self.plan(), [*self.LAYERS, layer("d", "int8")]) == []

    @pytest.mark.parametrize(
        "changes",
        [{"quantization": "none"}, {"use_dla": True}],
        ids=["a float engine", "a DLA's one layer"],
    )
    def test_where_it_tells_nothing(self, changes: dict[str, Any]) -> None:
        assert all_float(self.plan(**changes), self.LAYERS) == []

    def test_q_dq_inside_of_one_layer_tells_nothing(self) -> None:
        assert all_float(self.plan(quantization="explicit"), self.LAYERS) == []

    def test_an_inspector_that_is_silent(self) -> None:
        assert all_float(self.plan(), [layer("a", "")]) == []
