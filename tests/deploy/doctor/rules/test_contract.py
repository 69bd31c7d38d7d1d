"""Every file is a rule that `deploy doctor` asks, and a harmless model bothers none of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from doctor_cases import case, said

import deploy.doctor.rules
from deploy import registry
from deploy.doctor.diagnosis import RULES

FILES = sorted(
    path.stem
    for path in Path(deploy.doctor.rules.__path__[0]).glob("*.py")
    if path.stem != "__init__"
)


def test_every_file_is_asked() -> None:
    assert sorted(rule.__name__ for rule in RULES) == FILES


@pytest.mark.parametrize("target", registry.names("target"))
def test_nothing_is_said_of_a_harmless_model(target: str) -> None:
    harmless = case("g (float[1,3,8,6] x) => (float[1,3,8,6] y) { y = Relu(x) }", target)
    assert [f for name in FILES if name != "vendor_compiler" for f in said(name, harmless)] == []
