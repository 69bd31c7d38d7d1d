"""A model that ONNX Runtime lacks a kernel for can't be judged."""

from __future__ import annotations

import numpy as np
import pytest
from doctor_cases import case, only, said

from deploy.doctor.rules import reference

TEXT = """g (double[1,3,5,7] x) => (double[a,b,c,d] y) { y = Conv(x, w) }"""


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "no_gpu", lambda: "no NVIDIA GPU on this machine")


def test_no_kernel() -> None:
    found = only("reference", case(TEXT, "xavier", {"w": np.ones((4, 3, 1, 1))}, precision="fp32"))
    assert found.level == "stop"
    assert "the float32 reference (ONNX Runtime) can't run it" in found.text


def test_nothing_is_said_of_what_runs() -> None:
    text = TEXT.replace("double", "float")
    weights = {"w": np.ones((4, 3, 1, 1), "f4")}
    assert said("reference", case(text, "xavier", weights)) == []


def test_on_the_device_its_own_compiler_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "no_gpu", lambda: "")
    weights = {"w": np.ones((4, 3, 1, 1))}
    assert said("reference", case(TEXT, "xavier", weights, precision="fp32")) == []


def test_no_float32_reference() -> None:
    shift = 'y = BitShift<direction="LEFT">(c, c)'
    text = f"g (float[1,4,5] x) => (uint16[1,4,5] y) {{ c = Cast<to=4>(x) {shift} }}"
    found = only("reference", case(text, "cpu", precision="fp32"))
    assert "can't run it" in found.text
