"""What may leave float16's range is said where the target computes in it."""

from __future__ import annotations

import numpy as np
from doctor_cases import case, only, said

ADD = "g (float[1,2,4,6] x) => (float[1,2,4,6] y) { y = Add(x, mask) }"
LARGE = {"mask": np.linspace(-1e9, 1, 48, dtype=np.float32).reshape(1, 2, 4, 6)}


def test_a_constant_beyond_the_range() -> None:
    found = only("float16", case(ADD, "xavier", LARGE))
    assert found.level == "warning"
    assert "beyond float16's 65504, 1e+09 at most (mask in" in found.text


def test_not_where_it_is_small_or_float32_is_computed() -> None:
    assert said("float16", case(ADD, "xavier", {"mask": LARGE["mask"] / 1e6})) == []
    assert said("float16", case(ADD, "xavier", LARGE, precision="fp32")) == []
    assert said("float16", case(ADD, "orin", LARGE, precision="bf16")) == []


def test_a_variance_that_is_written_out() -> None:
    norm = "g (float[2,3,32] x) => (float[2,3,32] y) { y = LayerNormalization(x, s) }"
    weights = {"s": np.linspace(0.5, 2, 32, dtype=np.float32)}
    found = only("float16", case(norm, "xavier", weights))
    assert found.level == "note"
    assert "Mul 1" in found.text
    # a release that has the operator sums in float32
    assert said("float16", case(norm, "orin", weights)) == []


def test_what_grows() -> None:
    text = "g (float[2,6] x) => (float[2,6] y) { y = Exp(x) }"
    assert "Exp 1" in only("float16", case(text, "t4")).text
