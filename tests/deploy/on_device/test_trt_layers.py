"""The inspector's JSON as TensorRT's guides show it: 8.5, 10 and 11 write it differently."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.on_device.trt_layers import layer_rows


def rows(*layers: Any, **more: Any) -> list[dict[str, Any]]:
    return layer_rows(json.dumps({"Layers": list(layers), **more}))


CONV_85 = {
    "Name": "conv1 + relu1",
    "LayerType": "CaskConvolution",
    "Inputs": [
        {"Name": "x", "Format/Datatype": "Four wide channel vectorized row major Int8 format"}
    ],
    "Outputs": [
        {"Name": "y", "Format/Datatype": "Channel major FP16 format where channel % 2 == 0"}
    ],
    "ParameterType": "Convolution",
    "Weights": {"Type": "Int8", "Count": 27},
    "Bias": {"Type": "Float", "Count": 4},
    "TacticName": "sm72_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
}
CONV_11 = {
    "Name": "__myl_Conv_0",
    "LayerType": "gemm",
    "Inputs": [{"Name": "x", "Format": "LINEAR", "DataType": "Int8"}],
    "Outputs": [{"Name": "y", "Format": "LINEAR", "Datatype": "Half"}],
    "TacticName": "__myl_Conv_0_tactic",
    "Metadata": "[ONNX Layer: conv1]\u001e[ONNX Layer: relu1]\u001e[ONNX Layer: conv1]",
}


def test_as_8_writes_it() -> None:
    (row,) = rows(CONV_85, Bindings=["x", "y"])
    assert row == {
        "name": "conv1 + relu1",
        "kind": "Convolution",
        "precision": "int8",
        "kernel": "sm72_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
        "fused_from": ["conv1", "relu1"],
    }


def test_as_11_writes_it() -> None:
    (row,) = rows(CONV_11, **{"I/O Tensors": [{"Name": "x", "IOMode": "Input"}]})
    assert row == {
        "name": "__myl_Conv_0",
        "kind": "gemm",
        "precision": "int8",
        "kernel": "__myl_Conv_0_tactic",
        "fused_from": ["conv1", "relu1"],
    }


def test_names_alone() -> None:
    (row,) = rows("conv1 + relu1")
    assert row == {
        "name": "conv1 + relu1",
        "kind": "unknown",
        "precision": "",
        "kernel": "",
        "fused_from": ["conv1", "relu1"],
    }


def test_weights_decide_over_what_is_read() -> None:
    """A float layer behind a reformat may read INT8."""
    layer = {**CONV_85, "Weights": {"Type": "Half"}}
    assert rows(layer)[0]["precision"] == "fp16"


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Row major linear FP16 format", "fp16"),
        ("Row major linear FP32", "fp32"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("BFloat16", "bf16"),
        ("FP8", "fp8"),
        ("Int32", "int32"),
        ("N/A due to dynamic shapes", ""),
    ],
)
def test_types_in_their_words(text: str, precision: str) -> None:
    layer = {"Name": "r", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": text}]}
    assert rows(layer)[0]["precision"] == precision


@pytest.mark.parametrize(
    ("name", "origins"),
    [
        ("conv + relu", ["conv", "relu"]),
        ("PWN(sigmoid, mul)", ["sigmoid", "mul"]),
        ("PWN(PWN(sigmoid), mul)", ["sigmoid", "mul"]),
        ("{ForeignNode[conv1...fc]}", ["conv1", "fc"]),
        ("w_QuantizeLinear + conv", ["w_QuantizeLinear", "conv"]),
        ("a || b", ["a", "b"]),
        ("Reformatting CopyNode for Input Tensor 0 to conv + relu", []),
    ],
)
def test_what_a_layer_is_made_of(name: str, origins: list[str]) -> None:
    assert rows({"Name": name, "LayerType": "x"})[0]["fused_from"] == origins


def test_an_inspector_that_tells_nothing() -> None:
    assert layer_rows("Layer information is not available: profiling verbosity is kNONE") == []
    assert layer_rows("{}") == []
