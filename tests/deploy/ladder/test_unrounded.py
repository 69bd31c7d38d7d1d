"""Q/DQ without the rounding: clipped where the type ends, exact in between."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ladder_faults import digits

from deploy.artifacts.model import Model
from deploy.backends.reference import ReferenceEngine
from deploy.ladder.tensors import observable
from deploy.ladder.unrounded import unrounded

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[2,3] x) => (float[3,2] y)'
MOVED = f"""{HEAD}
<float s = {{0.5}}, uint8 z = {{10}}, float e = {{0.25}}, int8 n = {{0}}> {{
    q = QuantizeLinear(x, s, z)
    t = Transpose <perm = [1, 0]> (q)
    d = DequantizeLinear(t, s, z)
    p = QuantizeLinear(d, e, n)
    y = DequantizeLinear(p, e, n)
}}"""
CHANNELS = f"""{HEAD}
<int8[2,2] w = {{1, -2, 3, 4}}, float[2] s = {{0.5, 0.25}}, int8[2] z = {{0, 0}},
 int32[2] b = {{100, -7}}, float t = {{0.125}}, int32 o = {{0}}> {{
    d = DequantizeLinear <axis = 0> (w, s, z)
    c = DequantizeLinear(b, t, o)
    m = Gemm <transA = 1> (x, d, c)
    y = Identity(m)
}}"""
COMPUTED = f"""{HEAD}
<uint8 z = {{0}}> {{
    s = ReduceMax <keepdims = 0> (x)
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    y = Transpose <perm = [1, 0]> (d)
}}"""
X = np.array([[0.3, -4.9, 7.13], [-8.0, 120.0, 200.0]], np.float32)


def parsed(text: str) -> Model:
    return Model(onnx.parser.parse_model(text), "tiny")


def run(model: Model, x: np.ndarray) -> np.ndarray:
    with ReferenceEngine(observable(model), threads=1, exact=True) as engine:
        return engine.run({"x": x})["y"]


def test_moved_integers_become_moved_floats() -> None:
    made = unrounded(parsed(MOVED))
    assert made is not None
    # uint8 by 0.5 from -5 to 122.5, then int8 by 0.25 from -32 to 31.75
    expected = np.clip(np.clip(X, -5, 122.5), -32, 31.75).T
    np.testing.assert_allclose(run(made, X), expected, atol=1e-5)
    assert np.abs(run(parsed(MOVED), X) - expected).max() > 0.1


def test_stored_integers_along_their_axis() -> None:
    made = unrounded(parsed(CHANNELS))
    assert made is not None
    weight = np.array([[0.5, -1.0], [0.75, 1.0]], np.float32)
    expected = X.T @ weight + np.array([12.5, -0.875], np.float32)
    np.testing.assert_allclose(run(made, X), expected, rtol=1e-6)


def test_a_computed_scale_is_left_alone() -> None:
    assert unrounded(parsed(COMPUTED)) is None


def test_a_whole_network_comes_near_its_float_graph() -> None:
    graphs, samples = digits().graphs, digits().samples
    made = unrounded(graphs["uncorrected"])
    assert made is not None

    def off(model: Model) -> float:
        with (
            ReferenceEngine(observable(graphs["equalized"]), threads=1) as exact,
            ReferenceEngine(observable(model), threads=1, exact=True) as other,
        ):
            pairs = [(exact.run(s.feeds), other.run(s.feeds)) for s in samples]
        return max(float(np.abs(a["logits"] - b["logits"]).max()) for a, b in pairs)

    # what is left is the rounding of the weights, which are stored as integers
    assert off(made) < 0.8 * off(graphs["uncorrected"])


@pytest.mark.parametrize("kind", ["uint16", "int16"])
def test_another_type_is_left_alone(kind: str) -> None:
    text = MOVED.replace("uint8 z", f"{kind} z")
    assert unrounded(parsed(text)) is None
