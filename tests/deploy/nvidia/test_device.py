"""Where an engine for an NVIDIA device is judged, and what its compiler tells of speed here."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles import installed
from tiny_models import conv, model, node

from deploy.artifacts.model import Model
from deploy.errors import MissingBackendError, RecipeError
from deploy.nvidia import device
from deploy.nvidia.device import (
    check_sizes,
    judged_as,
    more_moved,
    no_gpu,
    said_of_eight_bits,
)
from deploy.progress import Progress
from deploy.target import Precision, Target, with_batch


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

    @pytest.mark.parametrize("precision", ["int8", "fp16"])
    @pytest.mark.parametrize(
        ("name", "version", "sm"),
        [("xavier", "8.5.2", 72), ("xavier-dla", "8.5.2", 72), ("orin-dla", "10.3.0", 87)],
    )
    def test_a_cache_is_no_reason(
        self, name: str, version: str, sm: int, precision: Precision
    ) -> None:
        with installed(version, sm=sm):
            target, absent = judged_as(Target.load(name), precision)
        assert (target.backend, target.host, absent) == ("trt", True, "")
        assert target.quantization == Target.load(name).quantization


def test_tensorrt_rtx_is_missed_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy.backends import rtx

    monkeypatch.setattr(rtx, "_MODULES", ("no_such_module",))
    with pytest.raises(MissingBackendError, match=r"pip install onnx-deploy\[rtx\]"):
        judged_as(Target.load("rtx40"), "int8")


def test_more_traffic_than_fp16_is_told_in_numbers() -> None:
    words = more_moved({"int8": 900_000, "fp16": 300_000})
    assert "3.0x the bytes" in words and "0.90 against 0.30 MB" in words


def test_layers_that_were_to_be_in_8_bits_are_named() -> None:
    found: dict[str, object] = {"kind": "INT8", "layers_int8": 5, "layers_float": 4, "not_int8": []}
    assert said_of_eight_bits(found) == "5 of 9 layers run in INT8"
    others = [{"name": f"conv{i}", "reason": "TensorRT chose fp16, kernel k"} for i in range(4)]
    said = said_of_eight_bits({**found, "not_int8": others})
    assert said.startswith("5 of 9 layers run in INT8; 4 that were to don't: conv0 (TensorRT chose")
    assert "conv2 (" in said and "conv3" not in said and said.endswith(", 1 more")


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
