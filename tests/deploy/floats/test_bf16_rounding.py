"""with_bf16_rounding: float32 that is rounded where bfloat16 would be."""

import ml_dtypes
import numpy as np
from tiny_models import conv, model, node, normal

from deploy.backends import reference
from deploy.floats.bf16_rounding import with_bf16_rounding
from deploy.floats.convert_float import convert_float


def test_a_float_graph_is_left_as_it_is() -> None:
    exact = conv(1)
    assert with_bf16_rounding(exact) is exact


def test_a_convolution_is_rounded_going_in_and_coming_out() -> None:
    weights = {"w": normal(4, 3, 3, 3, seed=1), "b": normal(4, seed=2)}
    exact = model(
        [node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[1, 1, 1, 1])],
        {"x": [1, 3, 5, 7]},
        {"y": [1, 4, 5, 7]},
        weights,
        opset=22,  # the first whose Conv takes bfloat16
    )
    x = normal(1, 3, 5, 7, seed=4)
    half = with_bf16_rounding(convert_float(exact, "bf16"))
    expected = to_bf16(convolved(to_bf16(x), to_bf16(weights["w"]), to_bf16(weights["b"])))
    with reference.build(half) as engine:
        got = engine.run({"x": x})["y"]
    # sums in another order may round the other way: one step of 8 bits
    assert np.abs(got - expected).max() <= 2**-7 * np.abs(expected).max()
    assert np.array_equal(got, to_bf16(got))
    with reference.build(exact) as engine:
        assert not np.array_equal(engine.run({"x": x})["y"], got)


def to_bf16(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def convolved(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    summed = np.einsum("nchwij,ocij->nohw", windows, w, dtype=np.float64)
    return (summed + b[:, None, None]).astype(np.float32)
