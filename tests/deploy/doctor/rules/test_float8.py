"""What `deploy doctor` says of convolutions without FP8 kernels."""

from __future__ import annotations

from doctor_cases import case, only, said
from helpers import weight

TEXT = """g (float[1,32,5,7] x) => (float[a,b,c,d] y) {
    h = Conv<group=32>(x, w)
    y = Conv(h, v)
}"""
WEIGHTS = {"w": weight(32, 1, 1, 1), "v": weight(16, 32, 1, 1)}


def test_grouped_convolutions_are_named() -> None:
    found = only("float8", case(TEXT, "h100", WEIGHTS, precision="fp8"))
    assert found.level == "warning"
    assert "1 of 2 convolutions (Conv -> h) are grouped" in found.text
    assert "compare with --int8" in found.text


def test_nothing_is_said_of_int8_or_of_plain_convolutions() -> None:
    assert said("float8", case(TEXT, "h100", WEIGHTS, precision="int8")) == []
    plain = "g (float[1,32,5,7] x) => (float[a,b,c,d] y) { y = Conv(x, v) }"
    assert said("float8", case(plain, "h100", WEIGHTS, precision="fp8")) == []


def test_tensorrt_rtx_multiplies_matrices_alone() -> None:
    found = only("float8", case(TEXT, "rtx40", WEIGHTS, precision="fp8"))
    assert "2 convolutions stay float (matrix products alone" in found.text
