"""remove_expand: arithmetic that broadcasts by itself."""

from __future__ import annotations

import pytest
from helpers import assert_fuses, assert_same_numbers, assert_skips, model_from, ops

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.surgery.graph import verified

REMOVE = "remove_expand"


def model(body: str, data: str = "float[N,4,5,3] x, float[N,4,1,1] s", more: str = "") -> Model:
    made = model_from(f"g ({data}) => (float[a,b,c,d] y) <{more or 'int64 i = {0}'}> {{ {body} }}")
    if not more:
        del made.proto.graph.initializer[:]
    return made.derive(verified(made.proto, "m"), ())


FULL = "int64[4] t = {1, 4, 5, 3}"


@pytest.mark.parametrize(
    "body",
    [
        "e = Expand (s, t) y = Mul (x, e)",
        "e = Expand (s, t) y = Div (e, x)",
        "e = Expand (s, t) c = Greater (x, s) y = Where (c, x, e)",
    ],
)
def test_a_factor_per_channel(body: str) -> None:
    made = model(body, more=FULL)
    wanted = [op for op in ops(made) if op != "Expand"]
    fused = assert_fuses(made, REMOVE, wanted, rtol=0)
    assert fused.decisions[0].bytes_saved == 2 * 4 * (4 * 5 * 3)


def test_sizes_that_are_free() -> None:
    """expand_as, for any N, H and W."""
    body = "t = Shape (x) e = Expand (s, t) y = Mul (x, e)"
    made = model(body, "float[N,4,H,W] x, float[N,4,1,1] s")
    fused = fuse(made, [REMOVE])
    assert ops(fused) == ["Mul"]
    assert_same_numbers(made, fused, rtol=0)


@pytest.mark.parametrize("body", ["y = Sum (x, e, e)", "c = Less (x, s) y = Where (c, e, e)"])
def test_one_that_is_read_twice(body: str) -> None:
    made = model(f"e = Expand (s, t) {body}", more=FULL)
    fused = assert_fuses(made, REMOVE, [op for op in ops(made) if op != "Expand"], rtol=0)
    assert_same_numbers(made, fused, rtol=0)


def test_one_that_others_read_stays_for_those() -> None:
    body = "e = Expand (s, t) m = Mul (x, e) n = Neg (e) y = Sub (m, n)"
    fused = fuse(model(body, more=FULL), [REMOVE])
    assert ops(fused).count("Expand") == 1
    assert_same_numbers(model(body, more=FULL), fused, rtol=0)


@pytest.mark.parametrize(
    ("body", "data"),
    [
        ("e = Expand (s, t) y = Mul (s, e)", "float[N,4,1,1] s"),  # makes the map itself
        ("e = Expand (s, t) y = Max (e, e)", "float[N,4,1,1] s"),
        ("e = Expand (s, t) y = Mul (x, e)", "float[N,4,5,1] x, float[N,4,1,1] s"),
        ("e = Expand (s, t) y = Mul (x, e)", "float[N,4,H,W] x, float[N,4,1,1] s"),
    ],
)
def test_skips_what_makes_the_result_larger(body: str, data: str) -> None:
    reason = "isn't known to give as many elements without Expand"
    assert_skips(model(body, data, FULL), REMOVE, reason)
