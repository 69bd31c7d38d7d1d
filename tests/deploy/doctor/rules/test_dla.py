"""What a DLA leaves to the GPU, as the doctor says it."""

from __future__ import annotations

from doctor_cases import case, only, said
from helpers import weight

CONV = "g (float[1,3,8,6] x) => (float[1,4,6,4] y) { y = Conv(x, w) }"
MADE = {"w": weight(4, 3, 3, 3)}


def test_all_on_the_dla() -> None:
    assert said("dla", case(CONV, "xavier-dla", MADE)) == []


def test_nothing_on_the_dla_is_no_go() -> None:
    text = "g (float[1,3,8,6] x) => (float[1,3,8,6] y) { y = Erf(x) }"
    found = only("dla", case(text, "xavier-dla"))
    assert (found.level, "no layer can run on the DLA" in found.text) == ("stop", True)
    assert said("dla", case(text, "xavier")) == []


def test_torn_to_pieces() -> None:
    text = """g (float[1,3,8,6] x) => (float[1,4,6,4] y) {
        a = Relu(x) b = Erf(a) y = Conv(b, w)
    }"""
    found = only("dla", case(text, "orin-dla", MADE))
    assert found.level == "warning"
    assert "2 parts on the DLA with 2 changes" in found.text


def test_more_parts_than_a_core_holds() -> None:
    steps = " ".join(f"e{i} = Erf(r{i}) r{i + 1} = Relu(e{i})" for i in range(17))
    text = f"g (float[1,3,8,6] x) => (float[1,3,8,6] r17) {{ r0 = Relu(x) {steps} }}"
    assert "18 parts on the DLA, and one core holds 16" in only("dla", case(text, "orin-dla")).text


def test_a_batch_that_is_too_large() -> None:
    made = case(CONV, "xavier-dla", MADE)
    engine = made.target.engine.model_copy(update={"batch": 5000})
    object.__setattr__(made, "target", made.target.model_copy(update={"engine": engine}))
    assert "batch 5000: a DLA takes a fixed one" in only("dla", made).text
