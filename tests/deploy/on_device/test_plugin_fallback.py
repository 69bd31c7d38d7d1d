"""What becomes of a run whose kernels of ours can't be compiled, loaded or run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from doubles import plugin_library
from two_graphs import device, finish

from deploy.on_device.device_error import DeviceError
from deploy.on_device.engine_trial import Trial, Trials

pytestmark = pytest.mark.usefixtures("at_once")


class TestKernelsThatCannotBeUsed:
    """The engine without them is built and kept, and the reason is said aloud."""

    def fallen_back(
        self, folder: Path, capsys: pytest.CaptureFixture[str], reason: str
    ) -> dict[str, Any]:
        report = finish(folder)
        said = capsys.readouterr().out
        assert report["status"] == "ok"
        assert report["plugin_choice"]["chosen"] == "without"
        assert reason in report["plugin_choice"]["reason"]
        assert report["plugin_choice"]["with"]["passed"] is False
        (warning,) = [line for line in said.splitlines() if line.startswith("  warning")]
        assert "no engine with plugins: " in warning and reason in warning
        assert report["plugins"] == []
        assert report["latency"]["runs"] == 20
        # asked for, it is a failure
        report = finish(folder, "--with-plugins", code=1)
        assert report["status"] == "failed"
        assert reason in report["problems"][0]
        return report

    def test_no_compiler(
        self, tmp_path: Path, tools: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tools.unlink()
        tools.with_name("elsewhere").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shutil, "which", lambda name, path=None: None)
            self.fallen_back(device(tmp_path / "device"), capsys, "there's no nvcc at ")

    def test_no_headers(
        self, tmp_path: Path, tools: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "NvInferVersion.h").unlink()
        self.fallen_back(device(tmp_path / "device"), capsys, "there's no NvInferVersion.h in ")

    def test_sources_that_do_not_compile(
        self, tmp_path: Path, tools: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tools.write_text("#!/bin/sh\necho 'kernel.cu(7): error: x is undefined'\nexit 2\n")
        self.fallen_back(device(tmp_path / "device"), capsys, "kernel.cu(7): error: x is undefined")

    def test_a_library_that_cannot_be_loaded(
        self, tmp_path: Path, tools: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tools.write_text("#!/bin/sh\necho 'no shared object' >libonnx_deploy_plugins.so\n")
        self.fallen_back(device(tmp_path / "device"), capsys, "build it on this machine")

    def test_a_library_without_the_operator(
        self, tmp_path: Path, tools: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plugin_library(tmp_path / "double.so", "SePointwise")
        self.fallen_back(device(tmp_path / "device"), capsys, "ChannelShuffle")


def test_a_gpu_that_kernels_of_ours_stopped(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = Trials.compare

    def faulty(self: Trials, trial: Trial) -> None:
        if trial.plugins:
            raise DeviceError("the GPU stopped: an illegal memory access")
        compare(self, trial)

    def dead(self: Trials, trials: Any) -> None:
        raise DeviceError("cudaMalloc: cudaErrorIllegalAddress")

    monkeypatch.setattr(Trials, "compare", faulty)
    monkeypatch.setattr(Trials, "time", dead)
    (problem,) = finish(device(tmp_path / "device"), code=1)["problems"]
    assert problem.startswith("cudaMalloc: cudaErrorIllegalAddress, behind the GPU stopped: ")
    assert problem.endswith("run again with --without-plugins")
