"""FP8 through TensorRT-RTX's own compiler, which needs no GPU: what it reads, what it refuses."""

from __future__ import annotations

import importlib.util

import pytest
from tiny_models import model, node, normal, ranges_of

from deploy.analysis.vendor_layers import in_words, vendor_layers
from deploy.artifacts.model import Model
from deploy.backends import rtx
from deploy.errors import BuildError
from deploy.nvidia.dialect import as_shipped
from deploy.precisions import quantized_as
from deploy.quantize import quantize
from deploy.target import Target

pytestmark = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in rtx._MODULES),
    reason="TensorRT-RTX isn't installed (pip install onnx-deploy[rtx])",
)


def network() -> Model:
    """conv -> relu -> conv -> pool -> gemm"""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2"], ["c2"], name="conv2"),
        node("GlobalAveragePool", ["c2"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    weights = {
        "w1": normal(16, 16, 3, 3, seed=1, scale=0.3),
        "b1": normal(16, seed=2),
        "w2": normal(32, 16, 1, 1, seed=3),
        "w3": normal(16, 32, seed=4),
        "b3": normal(16, seed=5),
    }
    return model(nodes, {"x": [1, 16, 6, 8]}, {"y": [1, 16]}, weights)


def shipped(target: str) -> tuple[Model, Target]:
    chosen = quantized_as(Target.load(target), "fp8")
    exact = network()
    return as_shipped(quantize(exact, ranges_of(exact), chosen), chosen, "fp8"), chosen


@pytest.mark.parametrize("target", ["rtx40", "rtx50"])
def test_every_quantized_layer_reads_fp8(target: str) -> None:
    """Convolutions too, which the built-in targets leave in fp16: see their files."""
    made, chosen = shipped(target)
    with rtx.build(made, chosen.engine, "fp8") as engine:
        rows = vendor_layers(engine.layers(), made)
    assert in_words(rows, "fp8") == "3 of 3 layers with weights read FP8"


def test_ampere_has_none() -> None:
    made, _ = shipped("rtx40")
    with pytest.raises(BuildError, match="can't build it for SM86"):
        rtx.build(made, Target.load("rtx30").engine, "fp8")
