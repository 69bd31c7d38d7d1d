"""Bodies of If, Loop and Scan stay as they are."""

from __future__ import annotations

from doctor_cases import case, only, said

TEXT = """g (float[2,6] x, bool c) => (float[2,6] y) {
    y = If(c) <then_branch = t () => (float[2,6] u) { a = Relu(x) u = Neg(a) },
               else_branch = e () => (float[2,6] v) { v = Abs(x) }>
}"""


def test_an_if() -> None:
    found = only("control_flow", case(TEXT, "orin"))
    assert found.level == "warning"
    assert "If 1" in found.text
    assert "the 3 nodes in their bodies are neither fused nor quantized" in found.text
    assert "on the GPU" not in found.text
    assert "they run in float, and on the GPU" in only("control_flow", case(TEXT, "orin-dla")).text


def test_none() -> None:
    text = "g (float[2,6] x) => (float[2,6] y) { y = Relu(x) }"
    assert said("control_flow", case(text, "orin-dla")) == []
