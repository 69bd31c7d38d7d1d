"""The float32 twin of a model written in another float type."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from tiny_models import model, node

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.floats.widen import in_float32
from deploy.metrics import sqnr_db


def deep(kind: int, dtype: str) -> Model:
    """Six layers whose float16 rounding adds up."""
    random = np.random.default_rng(0)
    weights = {f"w{i}": (random.standard_normal((24, 24)) / 5).astype(dtype) for i in range(6)}
    nodes = []
    for i in range(6):
        nodes += [
            node("MatMul", [f"t{i}", f"w{i}"], [f"m{i}"]),
            node("Tanh", [f"m{i}"], [f"t{i + 1}"]),
        ]
    return model(nodes, {"t0": (kind, ["N", 24])}, {"t6": (kind, ["N", 24])}, weights)


def numpy_truth(network: Model, x: np.ndarray) -> np.ndarray:
    from onnx import numpy_helper

    value = x.astype(np.float64)
    for tensor in network.proto.graph.initializer:
        value = np.tanh(value @ numpy_helper.to_array(tensor).astype(np.float64))
    return value


@pytest.mark.parametrize(
    ("kind", "dtype"), [(TensorProto.FLOAT16, "float16"), (TensorProto.DOUBLE, "float64")]
)
def test_the_exact_reference_computes_in_float32(kind: int, dtype: str) -> None:
    network = deep(kind, dtype)
    x = np.random.default_rng(1).standard_normal((5, 24)).astype(dtype)
    with reference.build_exact(network) as exact:
        assert str(exact.inputs[0].dtype) == dtype, "fed as the model is"
        got = exact.run({"t0": x})["t6"]
    assert got.dtype == np.float32
    # float16 arithmetic would end near 74 dB
    assert sqnr_db(numpy_truth(network, x), got) > 120


def test_a_float32_model_is_itself() -> None:
    network = model([node("Relu", ["x"], ["y"])], {"x": ["N", 3]}, {"y": ["N", 3]})
    assert in_float32(network) is network


def test_a_cast_there_and_back_inside_float32_stays() -> None:
    """There the rounding is what the model computes."""
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        node("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
    ]
    network = model(nodes, {"x": ["N", 3]}, {"y": ["N", 3]})
    assert in_float32(network) is network
