"""Where an engine for an NVIDIA device is judged, and what its compiler tells of speed here."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles import installed
from tiny_models import conv, model, node

from deploy.artifacts.model import Model
from deploy.errors import MissingBackendError, RecipeError
from deploy.nvidia import device
from deploy.nvidia.device import check_sizes, judged_as, more_moved, no_gpu
from deploy.progress import Progress
from deploy.target import Target, with_batch


def test_a_machine_without_a_driver_says_so_plainly(tmp_path: Path) -> None:
    assert no_gpu(tmp_path) == "no NVIDIA GPU on this machine"


@pytest.mark.parametrize("name", ["nvidiactl", "nvhost-ctrl-gpu", "dxg"])
def test_a_driver_is_asked_further(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert no_gpu(tmp_path) == ""


def test_other_targets_need_no_device() -> None:
    cpu = Target.load("cpu")
    assert judged_as(cpu, "int8") == (cpu, "")


def test_without_the_device_onnx_runtime_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "no_gpu", lambda: "no NVIDIA GPU on this machine")
    target, absent = judged_as(Target.load("orin"), "int8")
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

    def test_kernels_of_ours_wait_until_they_are_measured(self) -> None:
        with installed("10.3.0", sm=87):
            target, absent = judged_as(Target.load("orin"), "int8")
        assert (target.backend, target.host, absent) == ("trt", True, "")
        assert not [name for name in target.engine_fusions if name.startswith("plugin_")]
        assert target.plugin_fusions == Target.load("orin").engine_fusions

    def test_another_gpu_is_named(self) -> None:
        with installed("10.3.0", sm=90):
            target, absent = judged_as(Target.load("orin"), "int8")
        assert target.backend == "reference"
        assert "sm_90" in absent and "sm_87" in absent

    def test_a_cache_is_left_to_finish(self) -> None:
        with installed("8.5.2", sm=72):
            target, absent = judged_as(Target.load("xavier"), "int8")
        assert target.backend == "reference"
        assert "built by finish.py" in absent

    def test_float_needs_no_cache(self) -> None:
        with installed("8.5.2", sm=72):
            target, absent = judged_as(Target.load("xavier"), "fp16")
        assert (target.backend, absent) == ("trt", "")


def test_tensorrt_rtx_is_missed_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy.backends import rtx

    monkeypatch.setattr(rtx, "_MODULES", ("no_such_module",))
    with pytest.raises(MissingBackendError, match=r"pip install onnx-deploy\[rtx\]"):
        judged_as(Target.load("rtx40"), "int8")


def test_more_traffic_than_fp16_is_told_in_numbers() -> None:
    words = more_moved({"int8": 900_000, "fp16": 300_000})
    assert "3.0x the bytes" in words and "0.90 against 0.30 MB" in words


class TestSizes:
    def cautions(self, name: str, batch: object, model: Model) -> list[str]:
        said: list[str] = []
        progress = Progress()
        progress.caution = said.append  # type: ignore[method-assign]
        target = with_batch(Target.load(name), batch)  # type: ignore[arg-type]
        check_sizes(target, model, progress)
        return said

    @pytest.mark.parametrize("name", ["xavier-dla", "orin-dla"])
    def test_a_dla_takes_no_free_size(self, name: str) -> None:
        with pytest.raises(RecipeError, match=r"a DLA has no free sizes; fix them with --shape"):
            self.cautions(name, "dynamic", conv("N"))
        free = model([node("Relu", ["x"], ["y"])], {"x": [1, "T"]}, {"y": [1, "T"]})
        with pytest.raises(RecipeError, match="no free sizes"):
            self.cautions(name, 1, free)
        assert self.cautions(name, 1, conv("N")) == []

    def test_a_gpu_does(self) -> None:
        assert self.cautions("xavier", "dynamic", conv("N")) == []

    def test_a_dynamic_batch_of_a_fixed_model_is_said(self) -> None:
        (said,) = self.cautions("h100", "dynamic", conv(1))
        assert "no input has a free batch" in said
