"""What doctor says of weights stored in another float type."""

from __future__ import annotations

from doctor_cases import case, only, said
from helpers import weight

HALF = "g (float16[N,6] x) => (float16[N,8] y) { y = MatMul (x, w) }"


def test_int8_is_made_in_float32() -> None:
    found = only(
        "stored_type", case(HALF, "cpu", {"w": weight(6, 8, dtype="float16")}, precision="int8")
    )
    assert found.level == "note"
    assert "stored in float16, integers are made from it in float32" in found.text


def test_nothing_for_a_float_engine_or_float32() -> None:
    half = {"w": weight(6, 8, dtype="float16")}
    assert said("stored_type", case(HALF, "cpu", half, precision="fp32")) == []
    plain = "g (float[N,6] x) => (float[N,8] y) { y = MatMul (x, w) }"
    assert said("stored_type", case(plain, "cpu", {"w": weight(6, 8)}, precision="int8")) == []
