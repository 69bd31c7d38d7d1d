"""expand_mish: written out, and back again."""

from __future__ import annotations

import pytest
from helpers import assert_fuses, model_from, ops

from deploy.fuse import fuse

NAME = "expand_mish"


@pytest.mark.parametrize(("dtype", "rtol"), [("float", 1e-5), ("float16", 2e-3)])
def test_is_written_out(dtype: str, rtol: float) -> None:
    text = f"g ({dtype}[N,4,7] x) => ({dtype}[N,4,7] y) {{ y = Mish(x) }}"
    model = model_from(text, opset=18)
    assert_fuses(model, NAME, ["Softplus", "Tanh", "Mul"], reason="Mish written", rtol=rtol)


def test_recognition_undoes_it() -> None:
    text = "g (float[N,4,7] x) => (float[N,4,7] y) { y = Mish(x) }"
    expanded = fuse(model_from(text, opset=18), [NAME])
    assert ops(fuse(expanded, ["recognize_mish"])) == ["Mish"]
