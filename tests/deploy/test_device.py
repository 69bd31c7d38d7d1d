"""Where an engine for an NVIDIA device is judged, and what its compiler tells of speed here."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles import installed

from deploy import device
from deploy.device import judged_as, more_moved, no_gpu
from deploy.errors import MissingBackendError
from deploy.target import Target


def test_a_machine_without_a_driver_says_so_plainly(tmp_path: Path) -> None:
    assert no_gpu(tmp_path) == "no NVIDIA GPU on this machine"


@pytest.mark.parametrize("name", ["nvidiactl", "nvhost-ctrl-gpu", "dxg"])
def test_a_driver_is_asked_further(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert no_gpu(tmp_path) == ""


def test_other_targets_need_no_device() -> None:
    cpu = Target.load("cpu")
    assert judged_as(cpu) == (cpu, "")


def test_without_the_device_onnx_runtime_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "no_gpu", lambda: "no NVIDIA GPU on this machine")
    target, absent = judged_as(Target.load("orin"))
    assert (target.backend, target.host, absent) == (
        "reference",
        False,
        "no NVIDIA GPU on this machine",
    )


class TestOnTheDevice:
    """TensorRT and a GPU are here: the test double's."""

    @pytest.fixture(autouse=True)
    def a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device, "no_gpu", lambda: "")

    def test_the_engine_itself_is_judged_without_kernels_of_ours(self) -> None:
        with installed("10.3.0", sm=87):
            target, absent = judged_as(Target.load("orin"))
        assert (target.backend, target.host, absent) == ("trt", True, "")
        assert not [name for name in target.engine_fusions if name.startswith("plugin_")]

    def test_another_gpu_is_named(self) -> None:
        with installed("10.3.0", sm=90):
            target, absent = judged_as(Target.load("orin"))
        assert target.backend == "reference"
        assert "sm_90" in absent and "sm_87" in absent

    def test_a_cache_is_left_to_finish(self) -> None:
        with installed("8.5.2", sm=72):
            target, absent = judged_as(Target.load("xavier"))
        assert target.backend == "reference"
        assert "built by finish.py" in absent


def test_tensorrt_rtx_is_missed_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy.backends import rtx

    monkeypatch.setattr(rtx, "_MODULES", ("no_such_module",))
    with pytest.raises(MissingBackendError, match=r"pip install onnx-deploy\[rtx\]"):
        judged_as(Target.load("rtx40"))


def test_more_traffic_than_fp16_is_told_in_numbers() -> None:
    words = more_moved({"int8": 900_000, "fp16": 300_000})
    assert "3.0x the bytes" in words and "0.90 against 0.30 MB" in words
