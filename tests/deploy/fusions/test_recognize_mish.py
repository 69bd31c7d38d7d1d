"""recognize_mish: x * tanh(softplus(x)), and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "recognize_mish"
SPELLINGS = [
    "s = Softplus(x) t = Tanh(s) y = Mul(x, t)",
    "s = Softplus(x) t = Tanh(s) y = Mul(t, x)",
    "e = Exp(x) a = Add(e, one) s = Log(a) t = Tanh(s) y = Mul(x, t)",
    "e = Exp(x) a = Add(one, e) s = Log(a) t = Tanh(s) y = Mul(t, x)",
]


def model(body: str, *, dtype: str = "float", one: float = 1.0) -> Model:
    kind = {"float": "float32", "float16": "float16", "double": "float64"}[dtype]
    used = {"one": np.asarray(one, kind)} if "one" in body else {}
    return model_from(f"g ({dtype}[N,4,7] x) => ({dtype}[N,4,7] y) {{ {body} }}", used)


@pytest.mark.parametrize("body", SPELLINGS)
def test_every_spelling_fuses(body: str) -> None:
    fused = assert_fuses(model(body), NAME, ["Mish"])
    assert fused.opset == 18
    maps = 7 if "Softplus" in body else 11
    assert [d.bytes_saved for d in fused.decisions] == [(maps - 2) * 4 * (4 * 7)]


ABOVE = "s = Softplus(x) b = Greater(x, one) w = Where(b, x, s) t = Tanh(w) y = Mul(x, t)"


def test_a_softplus_that_is_linear_above_a_threshold() -> None:
    """As PyTorch's dynamo exporter writes F.softplus."""
    assert_fuses(model(ABOVE, one=20.0), NAME, ["Mish"])


@pytest.mark.parametrize(
    ("body", "threshold"),
    [
        (ABOVE, 2.0),
        (ABOVE.replace("w = Where(b, x", "n = Neg(x) w = Where(b, n"), 20.0),
        (ABOVE.replace("Greater", "Less"), 20.0),
    ],
)
def test_another_choice_is_none(body: str, threshold: float) -> None:
    kept = model(body, one=threshold)
    assert "Mish" not in ops(fuse(kept, [NAME]))


def test_float16_fuses() -> None:
    assert_fuses(model(SPELLINGS[0], dtype="float16"), NAME, ["Mish"], rtol=2e-3)


def test_skips_the_softplus_of_something_else() -> None:
    body = "n = Neg(x) s = Softplus(n) t = Tanh(s) y = Mul(x, t)"
    assert_skips(model(body), NAME, "only where z is x itself")


def test_skips_float64() -> None:
    body = SPELLINGS[2]
    assert_skips(model(body, dtype="double"), NAME, "in float32 and float16, not float64")


def test_another_number_than_one_is_none() -> None:
    fused = fuse(model(SPELLINGS[2], one=2.0), [NAME])
    assert (ops(fused), fused.decisions) == (["Exp", "Add", "Log", "Tanh", "Mul"], ())


@pytest.mark.parametrize(
    "body",
    [
        "t = Tanh(x) y = Mul(x, t)",
        "s = Softplus(x) y = Mul(x, s)",
        "s = Log(x) t = Tanh(s) y = Mul(x, t)",
    ],
)
def test_other_products_are_none(body: str) -> None:
    fused = fuse(model(body), [NAME])
    assert (sorted(ops(fused)), fused.decisions) == (sorted(ops(model(body))), ())
