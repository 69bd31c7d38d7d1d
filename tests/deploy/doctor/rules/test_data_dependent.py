"""Sizes that only a run tells."""

from __future__ import annotations

import numpy as np
from doctor_cases import case, only, said


def test_operators_that_count() -> None:
    text = "g (float[6] x) => (int64[1,n] y) { y = NonZero(x) }"
    found = only("data_dependent", case(text, "orin"))
    assert found.level == "warning"
    assert "NonZero 1" in found.text
    assert "how large the result is only a run tells" in found.text
    assert said("data_dependent", case(text, "cpu")) == []


def test_a_shape_computed_from_values() -> None:
    text = "g (float[6] x, int64[2] s) => (float[a,b] y) { y = Reshape(x, s) }"
    found = only("data_dependent", case(text, "orin"))
    assert "sizes computed from the values of the data: Reshape 1" in found.text


def test_a_shape_computed_from_a_shape_or_a_constant() -> None:
    shape = (
        "g (float[N,6] x, float[N,3,2] z) => (float[a,b,c] y) { s = Shape(z) y = Reshape(x, s) }"
    )
    assert said("data_dependent", case(shape, "orin")) == []
    fixed = "g (float[2,6] x) => (float[3,4] y) { y = Reshape(x, s) }"
    assert said("data_dependent", case(fixed, "orin", {"s": np.asarray([3, 4], np.int64)})) == []
