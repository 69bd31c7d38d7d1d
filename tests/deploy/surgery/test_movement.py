"""What movement and conversion know: kernels the reference really has, and exact quantization."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model_from, run
from movers import MOVERS, integers

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.surgery import movement
from deploy.surgery.conversion import dequantized, quantized

TEXT = {"float32": "float", "float64": "double"}
EVERY = frozenset({*movement._PLAIN, "bfloat16"})


def moving(op: str, dtype: str, opset: int) -> Model:
    dims_in, _, call, constants = MOVERS[op]
    left = "y, unread" if op == "Split" else "y"
    kind = TEXT.get(dtype, dtype)
    text = f"g ({kind}[{dims_in}] x) => ({kind} y) {{ {left} = {call} }}"
    model = model_from(text, integers(constants), opset=opset, ir=10)
    model.proto.graph.output[0].type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize("opset", [13, 18, 21])
@pytest.mark.parametrize("op", MOVERS)
def test_the_reference_has_every_kernel_of_the_table(op: str, opset: int) -> None:
    for dtype in sorted(movement._KERNELS.get(op, EVERY) & EVERY):
        reference.build(moving(op, dtype, opset)).close()


@pytest.mark.parametrize(
    "op", [op for op in movement._KERNELS if "float8_e5m2" in movement._KERNELS[op]]
)
def test_float8_moves_from_opset_21_on(op: str) -> None:
    for dtype in ("float8e4m3fn", "float8e5m2"):
        reference.build(moving(op, dtype, 21)).close()


def pair(dtype: np.dtype, scale: float, zero: int) -> Model:
    kind = np.dtype(dtype).name
    text = f"""
    g (float[N] x, {kind}[K] q) => ({kind}[N] y, float[K] z) {{
        y = QuantizeLinear(x, s, zp)  z = DequantizeLinear(q, s, zp)
    }}
    """
    values = {"s": np.float32(scale), "zp": np.asarray(zero, dtype)}
    return model_from(text, values, opset=21, ir=10)


@pytest.mark.parametrize("scale", [0.0123, 0.5, 3.7e-6])
@pytest.mark.parametrize(
    ("dtype", "zero"), [(np.uint8, 100), (np.int8, -3), (np.uint16, 30000), (np.int16, 11)]
)
def test_quantizes_as_the_reference_does(dtype: np.dtype, zero: int, scale: float) -> None:
    limits = np.iinfo(dtype)
    q = np.arange(limits.min, limits.max + 1).astype(dtype)
    # halves round to even; both ends saturate
    steps = np.arange(-700, 700) / 2
    x = np.concatenate([steps, 300 * steps, [1e30, -1e30]]).astype(np.float32) * np.float32(scale)
    given = (np.float32(scale), np.asarray(zero, dtype))
    found = run(pair(dtype, scale, zero), {"x": x, "q": q})
    np.testing.assert_array_equal(quantized(x, *given, np.dtype(dtype)), found["y"])
    np.testing.assert_array_equal(dequantized(q, *given), found["z"])
