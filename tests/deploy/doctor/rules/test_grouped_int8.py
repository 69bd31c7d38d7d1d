"""Grouped convolutions that TensorRT has no INT8 kernel for."""

from __future__ import annotations

import pytest
from doctor_cases import case, only, said
from helpers import weight


@pytest.mark.parametrize(
    ("out", "each", "groups", "said_so"),
    [(24, 10, 3, True), (30, 8, 3, True), (24, 8, 3, False), (6, 1, 6, False), (5, 7, 1, False)],
)
def test_groups_of_odd_sizes(out: int, each: int, groups: int, said_so: bool) -> None:
    channels = each * groups
    text = (
        f"g (float[1,{channels},5,7] x) => (float[a,b,c,d] y) {{ y = Conv<group={groups}>(x, w) }}"
    )
    made = {"w": weight(out, each, 1, 1)}
    assert bool(said("grouped_int8", case(text, "xavier", made))) == said_so
    assert said("grouped_int8", case(text, "rtx40", made, precision="int8")) == []
    assert said("grouped_int8", case(text, "xavier", made, precision="fp16")) == []


def test_its_words() -> None:
    text = "g (float[1,30,5,7] x) => (float[a,b,c,d] y) { y = Conv<group=3>(x, w) }"
    found = only("grouped_int8", case(text, "orin", {"w": weight(24, 10, 1, 1)}))
    assert found.level == "warning"
    assert "grouped convolutions, 1 (Conv -> y), without a multiple of 4 channels" in found.text
