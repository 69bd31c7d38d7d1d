"""bfloat16 in the graph needs a newer opset than some devices read."""

from __future__ import annotations

from doctor_cases import case, only, said
from helpers import weight

TEXT = """g (float[1,32,5,7] x) => (float[a,b,c,d] y) { y = Conv(x, w) }"""
WEIGHTS = {"w": weight(16, 32, 1, 1)}


def test_the_graph_can_not_be_written() -> None:
    found = only("strong_typing", case(TEXT, "thor", WEIGHTS, precision="bf16"))
    assert found.level == "stop"
    assert "bf16 needs opset 22 in the graph, target 'thor' reads up to 20" in found.text


def test_nothing_is_said_where_it_can() -> None:
    for name, precision in (("h100", "bf16"), ("thor", "fp16"), ("orin", "bf16")):
        assert said("strong_typing", case(TEXT, name, WEIGHTS, precision=precision)) == []
