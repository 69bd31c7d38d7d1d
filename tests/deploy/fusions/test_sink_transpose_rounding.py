"""sink_transpose_rounding: sums and what rounds by place take a Transpose in, to round-off."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "sink_transpose_rounding"
TO_NHWC, TO_NCHW = "perm=[0,2,3,1]", "perm=[0,3,1,2]"


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def sandwich(middle: str, *, opset: int = 18) -> Model:
    text = (
        "g (float[N,4,8,6] x) => (float[N,4,8,6] y) "
        f"{{ a = Transpose<{TO_NHWC}>(x) {middle} y = Transpose<{TO_NCHW}>(b) }}"
    )
    return model_from(text, opset=opset)


@pytest.mark.parametrize("opset", [17, 18])
def test_a_mean_takes_it_in(opset: int) -> None:
    axes, constants = ("<axes=[1,2], keepdims=0>(a)", {})
    if opset == 18:
        axes, constants = "<keepdims=0>(a, i)", {"i": ints(-3, 2)}
    text = f"{{ a = Transpose<{TO_NHWC}>(x) y = ReduceMean{axes} }}"
    model = model_from(f"g (float[N,4,8,6] x) => (float[N,4] y) {text}", constants, opset=opset)
    assert_fuses(model, NAME, ["ReduceMean"], reason="Transposes 1 -> 0", rtol=1e-6)


@pytest.mark.parametrize("op", ["ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp"])
def test_other_sums_do(op: str) -> None:
    text = f"{{ a = Transpose<{TO_NHWC}>(x) y = {op}<axes=[1,2], keepdims=0>(a) }}"
    model = model_from(f"g (float[N,4,3,5] x) => (float[N,4] y) {text}")
    assert_fuses(model, NAME, [op], rtol=1e-6)


@pytest.mark.parametrize("op", ["Softplus", "Mish", "Elu", "Selu", "Celu", "Sin", "Cos", "Atan"])
def test_what_rounds_by_place(op: str) -> None:
    assert_fuses(sandwich(f"b = {op}(a)"), NAME, [op], reason="Transposes 2 -> 0", rtol=1e-6)


def test_a_whole_region_with_one_of_them() -> None:
    middle = "r = Relu(a) m = ReduceMean<keepdims=1>(r, i) b = Mul(r, m)"
    made = model_from(
        "g (float[N,4,8,6] x) => (float[N,4,8,6] y) "
        f"{{ a = Transpose<{TO_NHWC}>(x) {middle} y = Transpose<{TO_NCHW}>(b) }}",
        {"i": ints(1, 2)},
        opset=18,
    )
    assert_fuses(made, NAME, ["Relu", "ReduceMean", "Mul"], rtol=1e-6)


def test_a_region_without_any_is_left_to_the_exact_half() -> None:
    assert fuse(sandwich("b = Relu(a)"), [NAME]).decisions == ()


def test_skips_where_more_would_move() -> None:
    """Behind a tiled value the Transpose would be of more bytes."""
    text = (
        f"g (float[N,4,8,6] x) => (float[N,8,6,8] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "s = Softplus(a) y = Concat<axis=3>(s, s) }"
    )
    assert_skips(model_from(text), NAME, "transposes would move")
