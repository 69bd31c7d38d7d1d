"""Free dimensions: the batch is fixed, others need a profile or are refused."""

from __future__ import annotations

import pytest
from doctor_cases import case, only, said

FREE = "g (float[1,3,h,w] x) => (float[1,3,h,w] y) { y = Relu(x) }"
BATCH = "g (float[N,3,8,6] x) => (float[N,3,8,6] y) { y = Relu(x) }"


def test_the_batch_becomes_the_engines() -> None:
    found = only("shapes", case(BATCH, "xavier"))
    assert (found.level, found.text) == (
        "note",
        "the batch is free; the engine is built for 1 (--batch changes that)",
    )


@pytest.mark.parametrize(
    ("target", "level", "words"),
    [
        ("xavier", "warning", "an optimization profile around the sizes in your samples"),
        ("xavier-dla", "stop", "a DLA takes none"),
        ("intel-npu", "stop", "an NPU takes none"),
        ("cpu", "note", "it is faster"),
    ],
)
def test_other_free_dimensions(target: str, level: str, words: str) -> None:
    found = only("shapes", case(FREE, target))
    assert (found.level, found.where) == (level, ("x",))
    assert "x float32[1,3,h,w]: free dimensions besides the batch" in found.text
    assert words in found.text
    assert "--shape x=1,3,?,?" in found.text


def test_static() -> None:
    text = "g (float[2,3,8,6] x) => (float[2,3,8,6] y) { y = Relu(x) }"
    assert said("shapes", case(text, "xavier-dla")) == []
