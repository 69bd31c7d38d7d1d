from __future__ import annotations

from typing import Any

from deploy.on_device.int8_layers import int8_row


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
