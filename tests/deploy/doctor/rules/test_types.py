"""Types that a release narrows or refuses."""

from __future__ import annotations

import numpy as np
import pytest
from doctor_cases import case, only, said

DOUBLE = "g (double[2,6] x) => (double[2,6] y) { y = Relu(x) }"


def test_double_is_computed_in_float32() -> None:
    found = only("types", case(DOUBLE, "orin"))
    assert found.level == "warning"
    assert "float64 values (x, y): computed in float32" in found.text
    assert said("types", case(DOUBLE, "cpu")) == []


@pytest.mark.parametrize(("target", "level"), [("t4", "stop"), ("xavier", "stop"), ("orin", None)])
def test_bfloat16_begins_with_ampere(target: str, level: str | None) -> None:
    text = "g (bfloat16[2,6] x) => (bfloat16[2,6] y) { y = Add(x, x) }"
    assert [finding.level for finding in said("types", case(text, target))] == [level] * bool(level)


def test_types_that_no_release_has() -> None:
    text = "g (uint32[6] x) => (float[6] y) { y = Cast<to=1>(x) }"
    found = only("types", case(text, "h100"))
    assert (found.level, "uint32 values (x): TensorRT 10.16.1 has no such type" in found.text) == (
        "stop",
        True,
    )


def test_int64_at_inputs_is_int32_in_release_8() -> None:
    text = "g (int64[6] x) => (float[6] y) { y = Cast<to=1>(x) }"
    assert "int64 at x: TensorRT 8" in only("types", case(text, "xavier")).text
    assert said("types", case(text, "orin")) == []


@pytest.mark.parametrize(("value", "said_so"), [(2**40, True), (7, False)])
def test_int64_constants_beyond_int32(value: int, said_so: bool) -> None:
    text = "g (int32[6] x) => (float[6] y) { a = Cast<to=7>(x) b = Add(a, big) y = Cast<to=1>(b) }"
    made = case(text, "xavier", {"big": np.asarray(value, np.int64)})
    assert any("clamps them" in finding.text for finding in said("types", made)) == said_so


def test_the_end_of_a_slice_may_be_as_large_as_it_likes() -> None:
    text = "g (float[6] x) => (float[a] y) { y = Slice(x, s, e) }"
    ends = {"s": np.asarray([1], np.int64), "e": np.asarray([2**62], np.int64)}
    assert said("types", case(text, "xavier", ends)) == []


def test_uint8_inside_the_graph() -> None:
    inside = """g (float[1,1,4,6] x) => (float[1,1,8,12] y) {
        a = Cast<to=2>(x) b = Resize<mode="nearest">(a, , s) y = Cast<to=1>(b)
    }"""
    scales = {"s": np.asarray([1, 1, 2, 2], np.float32)}
    found = only("types", case(inside, "xavier", scales))
    assert (found.level, "at inputs and outputs only" in found.text) == ("stop", True)
    port = "g (uint8[6] x) => (float[6] y) { y = Cast<to=1>(x) }"
    assert said("types", case(port, "xavier")) == []


@pytest.mark.parametrize(("zero", "level"), [(3, "stop"), (0, None)])
def test_zero_points_have_to_be_zero(zero: int, level: str | None) -> None:
    text = """g (float[2,6] x) => (float[2,6] y) {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Relu(d)
    }"""
    weights = {"s": np.asarray(0.1, np.float32), "z": np.asarray(zero, np.int8)}
    found = said("types", case(text, "orin", weights))
    assert [finding.level for finding in found] == [level] * bool(level)
