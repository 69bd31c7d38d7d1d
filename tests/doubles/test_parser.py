"""What a double's parser makes of a model, and what it refuses, per version."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import weight

from doubles import installed, plugin_library
from doubles.operators import unsupported
from doubles.works import QDQ, SCALES, WEIGHTS, Work

SHARED = Path(__file__).resolve().parents[3] / "shared" / "trt" / "unsupported_ops.json"


@pytest.mark.parametrize(
    ("version", "text"),
    [("8.5.2", "zeroPt must be all zeros"), ("10.16.1", "ASYMMETRIC_QUANTIZATION_DLA")],
)
def test_a_zero_point_has_to_be_zero(version: str, text: str) -> None:
    with installed(version) as here:
        work = Work(here)
        assert not work.parse(QDQ, {**WEIGHTS, "xs": SCALES["x"], "z": np.int8(3)})
        assert text in work.parser.get_error(0).desc()
        assert work.parser.get_error(0).node() == 0


@pytest.mark.parametrize(("version", "newest"), [("8.5.2", 17), ("10.3.0", 20), ("11.4.0", 24)])
def test_an_opset_above_the_parser_s(version: str, newest: int) -> None:
    with installed(version) as here:
        assert Work(here).parse(opset=newest)
        work = Work(here)
        assert not work.parse(opset=newest + 1)
        assert f"up to {newest}" in work.parser.get_error(0).desc()


@pytest.mark.parametrize(("version", "known"), [("8.5.2", False), ("8.6.1", True)])
def test_an_operator_without_an_importer(version: str, known: bool) -> None:
    text = "g (float[2,4] x) => (float[2,4] y) { [norm] y = LayerNormalization(x, w) }"
    with installed(version) as here:
        work = Work(here)
        assert work.parse(text, {"w": weight(4)}) == known
        assert known or "LayerNormalization" in work.parser.get_error(0).desc()


def test_bytes_that_are_no_model(xavier: Work) -> None:
    assert not xavier.parser.parse(b"\xff\xfe no model")
    assert xavier.parser.num_errors == 1


def test_a_gemm_has_a_tensor_that_no_model_names(xavier: Work) -> None:
    text = "g (float[2,4] x) => (float[2,5] y) { [head] y = Gemm <transB = 1> (x, w, b) }"
    assert xavier.parse(text, {"w": weight(5, 4), "b": weight(5)})
    network = xavier.network
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    assert [layer.type.name for layer in layers] == [
        *("CONSTANT", "CONSTANT", "MATRIX_MULTIPLY", "SHUFFLE", "ELEMENTWISE")
    ]
    assert layers[2].name == "head"
    assert layers[2].get_output(0).name == "(Unnamed Layer* 2) [Matrix Multiply]_output"
    assert layers[4].get_output(0).name == "y"


def test_a_plugin_needs_its_library(xavier: Work, tmp_path: Path) -> None:
    import ctypes

    text = "g (float[1,4,6,8] x) => (float[1,4,6,8] y) "
    text += "{ [s] y = onnx_deploy.ChannelShuffle <groups = 2> (x) }"
    assert not xavier.parse(text, {})
    assert "ChannelShuffle" in xavier.parser.get_error(0).desc()
    ctypes.CDLL(str(plugin_library(tmp_path / "libshuffle.so", "ChannelShuffle")))
    assert [c.name for c in xavier.trt.get_plugin_registry().plugin_creator_list] == [
        "ChannelShuffle"
    ]
    assert xavier.parse(text, {})
    assert xavier.network.get_layer(0).type == xavier.trt.LayerType.PLUGIN_V2
    x = weight(1, 4, 6, 8)
    np.testing.assert_array_equal(xavier.run(xavier.build(), x), x[:, [0, 2, 1, 3]])


@pytest.mark.skipif(not SHARED.is_file(), reason="../shared/trt/unsupported_ops.json is not there")
@pytest.mark.parametrize(
    ("version", "key"),
    [
        ("8.5.2", "8.5.2.2 (binary supportsOperator)"),
        ("8.6.1", "8.6.0 (binary supportsOperator)"),
        ("10.1.0", "10.1 (onnx-tensorrt operators.md 10.1-GA)"),
        ("11.1.0", "11.1 (onnx-tensorrt operators.md @7c51a63a)"),
    ],
)
def test_operators_are_as_recorded(version: str, key: str) -> None:
    later = {"Attention", "RMSNormalization", "RotaryEmbedding", "Swish"}  # not of their opsets
    hidden = {"NonMaxSuppression", "NonZero", "RoiAlign"}  # by supportsOperator alone
    recorded = set(json.loads(SHARED.read_text())[key]) - hidden
    assert unsupported(version) - later == recorded
