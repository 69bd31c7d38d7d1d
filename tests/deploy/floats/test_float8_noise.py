"""Float8's rounding, spelled out in float32 operators."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from calibrators.float8 import Float8
from deploy.floats.float8_noise import float8_noise, float8_rounding

X = np.random.default_rng(3).normal(size=5001).astype(np.float32) ** 5


def run(made: tuple[list[onnx.NodeProto], list[onnx.TensorProto]]) -> np.ndarray:
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [5001]) for n in ("x", "y")]
    graph = helper.make_graph(made[0], "g", ports[:1], ports[1:], made[1])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    (found,) = ReferenceEvaluator(model).run(None, {"x": X})
    return np.asarray(found)


@pytest.mark.parametrize("scale", [0.25, 0.003, 3.0])
def test_rounds_as_float8_does_and_saturates(scale: float) -> None:
    expected = Float8(np.float32(scale))
    wanted = expected.dequantize(expected.quantize(X))
    got = run(float8_rounding(("x", "y"), np.float32(scale)))
    # beside a power of two a logarithm's last bit may take the other step; nothing else differs
    assert np.count_nonzero(np.abs(got - wanted) > 1e-6 * np.abs(wanted)) <= 2
    assert np.abs(got).max() <= np.float32(448 * scale) * (1 + 1e-6)
    if scale == 0.003:
        assert np.count_nonzero(np.abs(X) > 448 * scale) > 100


def test_noise_stays_within_its_share_of_a_step() -> None:
    off = np.abs(run(float8_noise(("x", "y"), np.float32(0.25), 0.5, 7.0, 19)) - X)
    steps = Float8(np.float32(0.25)).steps(X)
    assert np.all(off <= 0.5 * steps * (1 + 1e-3) + 1e-6)
    assert (off / steps).max() > 0.49
