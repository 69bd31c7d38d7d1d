"""expand_hard_swish: the numbers stay, and recognition undoes it."""

from __future__ import annotations

import pytest
from helpers import assert_fuses, assert_skips, model_from, ops

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "expand_hard_swish"


def model(dtype: str = "float") -> Model:
    return model_from(f"g ({dtype}[N,4,7] x) => ({dtype}[N,4,7] y) {{ y = HardSwish(x) }}")


@pytest.mark.parametrize(("dtype", "rtol"), [("float", 1e-6), ("float16", 2e-3)])
def test_is_written_out(dtype: str, rtol: float) -> None:
    steps = ["Mul", "Add", "Clip", "Mul"]
    assert_fuses(model(dtype), NAME, steps, reason="HardSwish written", rtol=rtol)


def test_recognition_undoes_it() -> None:
    assert ops(fuse(fuse(model(), [NAME]), ["recognize_hard_swish"])) == ["HardSwish"]


def test_skips_float64() -> None:
    assert_skips(model("double"), NAME, "only float32 and float16 .* this is float64")
