"""The vendor's own compiler is asked where it runs here."""

from __future__ import annotations

import pytest
from doctor_cases import case, only, said

from deploy.backends import ov, rtx
from deploy.errors import BuildError, MissingBackendError

TEXT = "g (float[1,3,8,6] x) => (float[1,3,8,6] y) { y = Relu(x) }"


def test_openvino_reads_it() -> None:
    pytest.importorskip("openvino")
    found = only("vendor_compiler", case(TEXT, "cpu"))
    assert (found.level, found.text) == ("note", "OpenVINO reads the float graph here")


def test_its_refusal_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise BuildError("m: OpenVINO can't read the graph: it says why")

    monkeypatch.setattr(ov, "build", refuse)
    found = only("vendor_compiler", case(TEXT, "intel-npu"))
    assert (found.level, "it says why" in found.text) == ("stop", True)


def test_a_compiler_that_is_not_installed_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise MissingBackendError("TensorRT-RTX isn't installed")

    monkeypatch.setattr(rtx, "build", missing)
    found = only("vendor_compiler", case(TEXT, "rtx50"))
    assert (found.level, found.text) == ("warning", "not asked: TensorRT-RTX isn't installed")


def test_tensorrt_needs_its_device() -> None:
    assert said("vendor_compiler", case(TEXT, "xavier")) == []
