"""Every file is a rule that `deploy doctor` asks, and a harmless model bothers none of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from doctor_cases import case, said

from deploy import registry
from deploy.artifacts.model import Model
from deploy.doctor.case import Finding
from deploy.doctor.diagnosis import doctor
from deploy.target import Target

NAMES = registry.names("rule")


def test_every_file_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each says one thing here, the gravest first."""
    told = {name: lambda case, n=name: [Finding(n, "note", "")] for name in NAMES}
    told["types"] = lambda case: [Finding("types", "stop", "")]
    real = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name: told[name] if kind == "rule" else real(kind, name)
    )
    small = case("g (float[1,3,8,6] x) => (float[1,3,8,6] y) { y = Relu(x) }", "orin").loaded
    Model(small.proto, "small").save(tmp_path / "small.onnx")
    found = doctor(tmp_path / "small.onnx", Target.load("orin"), shapes={}).findings
    said_by = [finding.rule for finding in found if finding.rule in NAMES]
    assert said_by == ["types", *(name for name in NAMES if name != "types")]


@pytest.mark.parametrize("target", registry.names("target"))
def test_nothing_is_said_of_a_harmless_model(target: str) -> None:
    harmless = case("g (float[1,3,8,6] x) => (float[1,3,8,6] y) { y = Relu(x) }", target)
    assert [f for name in NAMES if name != "vendor_compiler" for f in said(name, harmless)] == []
