"""An opset is lowered where that means the same, and in the way where it doesn't."""

from __future__ import annotations

from doctor_cases import case, only, said

RELU = "g (float[2,6] x) => (float[2,6] y) { y = Relu(x) }"


def test_lowered() -> None:
    found = only("opset", case(RELU, "xavier", opset=21))
    assert (found.level, found.text) == (
        "note",
        "opset 21 is written as 17, every operator means the same",
    )


def test_refused_with_the_obstacle() -> None:
    text = "g (float[2,6] x) => (float[2,6] y) { y = Mish(x) }"
    # t4 writes Mish out; h100 reads opset 18
    assert only("opset", case(text, "t4", opset=18)).level == "note"
    pad = 'g (float[2,6] x, int64[4] p) => (float[a,b] y) { y = Pad<mode="wrap">(x, p) }'
    found = only("opset", case(pad, "xavier", opset=19))
    assert found.level == "stop"
    assert "TensorRT 8.5.2 reads up to 17: Pad" in found.text
    assert "export the model with opset 17" in found.text


def test_fitting() -> None:
    assert said("opset", case(RELU, "xavier", opset=17)) == []
    assert said("opset", case(RELU, "cpu", opset=21)) == []
