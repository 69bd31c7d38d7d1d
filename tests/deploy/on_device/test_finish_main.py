"""finish.py's `main` over the doubles: every way a run can end, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device_folder import device_report, write_device
from doubles import Gpu, installed

from deploy.on_device import latency_check
from deploy.on_device.finish_main import main
from deploy.on_device.finish_plan import FinishOptions, plan_of
from deploy.on_device.manifest_check import read_manifest
from deploy.on_device.trt_build import build_plan
from deploy.on_device.trt_plan import BuildPlan

IMPLICIT: dict[str, Any] = {"precision": "int8", "quantization": "implicit", "rest": "fp16"}


def finish(folder: Path, *flags: str) -> int:
    return main([str(folder), "--skip-latency", *flags])


@pytest.mark.parametrize("memory", ["pycuda", "cuda-python"])
def test_all_is_well(
    tmp_path: Path,
    memory: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(latency_check, "_WARM_UP_S", 0.0)
    folder = write_device(tmp_path / "device")
    with installed("8.5.2", 72, memory):
        assert main([str(folder), "--runs", "25"]) == 0
    report = device_report(folder)
    engine = (folder / "model.engine").read_bytes()
    assert (report["status"], report["built_with"]) == ("ok", "python")
    assert report["engine"]["sha256"] == hashlib.sha256(engine).hexdigest()
    assert report["engine"]["bytes"] == len(engine)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert report["manifest_sha256"] == manifest["manifest_sha256"]
    device = report["device"]
    assert (device["name"], device["compute_capability"]) == ("Xavier", "7.2")
    assert (device["library"], device["version"]) == ("tensorrt", "8.5.2")
    assert report["parity"]["outputs"][0]["sqnr_db"] > 100
    assert all(gate["passed"] for gate in report["parity"]["gates"])
    assert report["latency"]["runs"] == 25
    out = capsys.readouterr().out
    assert out.startswith("m, fp32, for xavier (NVIDIA Jetson AGX Xavier)\n  files ")
    assert out.endswith("copy this folder back and run: deploy import BUNDLE device/\n")


@pytest.mark.parametrize(
    ("version", "sm", "typing"),
    [
        ("8.6.1", 75, "weak"),
        ("10.3.0", 87, "weak"),
        ("10.16.1", 90, "strong"),
        ("11.4.0", 90, "strong"),
    ],
)
def test_every_generation(tmp_path: Path, version: str, sm: int, typing: str) -> None:
    nvidia = {"versions": [version], "compute_capability": f"{sm / 10:.1f}", "typing": typing}
    folder = write_device(tmp_path / "device", nvidia=nvidia)
    with installed(version, sm):
        assert finish(folder) == 0
    assert device_report(folder)["device"]["version"] == version


def test_implicit_int8_as_ranges_on_a_gpu(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device", **IMPLICIT)
    # another patch release: no cache is used that would name it
    with installed("8.5.2", 72) as here:
        here.trt.__dict__["__version__"] = "8.5.3.1"
        assert finish(folder) == 0
    report = device_report(folder)
    assert report["int8"] == {"layers_int8": 1, "layers_float": 0, "not_int8": []}
    assert 30 < report["parity"]["outputs"][0]["sqnr_db"] < 60


def test_a_cache_needs_its_very_release(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device", **IMPLICIT)
    with installed("8.5.2", 72) as here:
        here.trt.__dict__["__version__"] = "8.5.3.1"
        assert finish(folder, "--scales", "cache") == 3
    (problem,) = device_report(folder)["problems"]
    assert "tensorrt 8.5.3.1 is installed, this folder is for 8.5.2 (exactly" in problem
    assert "or leave the cache out with --scales ranges" in problem
    assert not (folder / "model.engine").exists()


def test_a_cache_that_is_ignored_fails(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device", **IMPLICIT, nvidia={"versions": ["8.6.1"]})
    with installed("8.6.1", 72):
        assert finish(folder, "--scales", "cache") != 0
    report = device_report(folder)
    assert report["status"] == "failed"
    assert "cache was ignored" in report["problems"][0]
    assert "TRT-8502-EntropyCalibration2" in report["problems"][0]


def test_a_tensor_without_a_scale_is_named(tmp_path: Path) -> None:
    cache = b"TRT-8502-EntropyCalibration2\nx: 3cf5c28f\nc: 3d4ccccd\n"
    folder = write_device(tmp_path / "device", **IMPLICIT, extra_files={"calibration.cache": cache})
    with installed("8.5.2", 72):
        assert finish(folder) == 3
    assert any("tensor 'y'" in problem for problem in device_report(folder)["problems"])


def test_the_dla_takes_the_cache(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device", **IMPLICIT, nvidia={"use_dla": True})
    with installed("8.5.2", gpu=Gpu(72, dla_cores=2)):
        assert finish(folder, "--dla-core", "1") == 0
    assert device_report(folder)["on_dla"]


def test_a_dla_core_the_device_lacks(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device", **IMPLICIT, nvidia={"use_dla": True})
    with installed("8.5.2", 72):
        assert finish(folder, "--dla-core", "2") == 1
    assert "DLA core 2, and NVIDIA Jetson AGX Xavier has 2" in device_report(folder)["problems"][0]


def test_a_dla_core_for_a_folder_of_the_gpu(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device", **IMPLICIT)
    with installed("8.5.2", gpu=Gpu(72, dla_cores=2)):
        assert finish(folder, "--dla-core", "1") == 1
    assert "--dla-core 1, and this folder is for the GPU" in device_report(folder)["problems"][0]


@pytest.mark.parametrize(
    ("version", "sm", "reason", "waiver"),
    [
        ("8.6.1", 72, "tensorrt 8.6.1 is installed, this folder is for 8.5.2", "version"),
        ("8.5.2", 87, "this GPU has compute capability 8.7, this folder is for 7.2", "sm"),
    ],
)
def test_another_device_is_refused_with_both_values(
    tmp_path: Path, version: str, sm: int, reason: str, waiver: str
) -> None:
    folder = write_device(tmp_path / "device")
    with installed(version, sm):
        assert finish(folder) == 3
    report = device_report(folder)
    assert (report["status"], report["engine"]) == ("failed", None)
    assert reason in report["problems"][0]
    with installed(version, sm):
        assert finish(folder, "--allow", waiver) == 0
    report = device_report(folder)
    assert report["status"] == "ok"
    assert reason in report["overrides"][0]


def test_a_changed_file_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device")
    (folder / "model.onnx").write_bytes(b"something else")
    with installed("8.5.2", 72):
        assert finish(folder) == 3
    report = device_report(folder)
    assert report["problems"][0].startswith("model.onnx: changed (14 bytes, was ")
    assert not (folder / "model.engine").exists()


def test_a_missed_gate_keeps_the_engine_as_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_device(tmp_path / "device", **IMPLICIT, parity={"min_sqnr_db": 90.0})
    with installed("8.5.2", 72):
        assert finish(folder) == 3
    report = device_report(folder)
    assert [gate["passed"] for gate in report["parity"]["gates"]] == [False, True]
    assert (folder / "model.engine").is_file()
    out = capsys.readouterr().out
    assert "needs 90" in out
    assert "deploy import" not in out


def test_far_from_the_simulation_fails(tmp_path: Path) -> None:
    """float32 is nearer to the truth than INT8, and still not what was judged on the host."""
    folder = write_device(tmp_path / "device", parity={"rounding_sqnr_db": {"y": 60.0}})
    with installed("8.5.2", 72):
        assert finish(folder) == 3
    (problem,) = device_report(folder)["problems"]
    assert problem.startswith("SQNR of 'y' against the host's simulation (dB) is 50.0")
    assert problem.endswith("needs 57")


def test_an_earlier_report_does_not_outlive_a_failed_run(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device")
    with installed("8.5.2", 72):
        assert finish(folder) == 0
    (folder / "parity" / "samples.npz").write_bytes(b"")
    with installed("8.5.2", 72):
        assert finish(folder) == 3
    assert device_report(folder)["status"] == "failed"


def test_an_interrupted_run_leaves_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_device(tmp_path / "device")
    with installed("8.5.2", 72):
        assert finish(folder) == 0

    def stopped(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deploy.on_device.engine_trial.plan_of", stopped)
    with installed("8.5.2", 72):
        assert finish(folder) == 130
    assert not (folder / "device_report.json").exists()
    assert "interrupted; run it again" in capsys.readouterr().err


def test_running_again_gives_the_same(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device")
    reports = []
    for _ in range(2):
        with installed("8.5.2", 72):
            assert finish(folder) == 0
        reports.append(device_report(folder))
    assert reports[0]["engine"]["sha256"] == reports[1]["engine"]["sha256"]
    assert reports[0]["parity"] == reports[1]["parity"]
    assert not list(folder.rglob("*.partial"))


def test_no_gpu(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device")
    with installed("8.5.2", gpu=Gpu(72, devices=0)):
        assert finish(folder) == 1
    assert "no NVIDIA GPU here" in device_report(folder)["problems"][0]


def test_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no manifest.json; run finish.py")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_device(tmp_path / "device")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device", str(folder / "x"))

    monkeypatch.setattr("deploy.on_device.device_report.write_whole", full)
    with installed("8.5.2", 72):
        assert finish(folder) == 1
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--runs", "0"],
        ["--dla-core", "-1"],
        ["--allow", "files"],
        ["--scales", "ranges", "--trtexec"],
        ["--nonsense"],
    ],
)
def test_wrong_options(tmp_path: Path, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), *flags])
    assert stopped.value.code == 2


def test_print_trtexec_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_device(
        tmp_path / "device", **IMPLICIT, nvidia={"use_dla": True, "workspace_bytes": 1 << 30}
    )
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    assert main([str(folder), "--print-trtexec"]) == 0
    assert shlex.split(capsys.readouterr().out) == [
        "trtexec",
        "--onnx=model.onnx",
        "--saveEngine=model.engine",
        "--int8",
        "--fp16",
        "--calib=calibration.cache",
        "--precisionConstraints=prefer",
        "--layerPrecisions=*:fp16,conv:int8,relu:int8",
        "--useDLACore=0",
        "--allowGPUFallback",
        "--memPoolSize=workspace:1024",
        "--noTF32",
        "--timingCacheFile=timing.cache",
        "--profilingVerbosity=detailed",
        "--exportLayerInfo=layers.json",
        "--buildOnly",
    ]
    assert sorted(folder.rglob("*")) == before


def prebuilt(folder: Path) -> Path:
    """A folder of TensorRT-RTX with the engine in it."""
    nvidia = {
        "library": "tensorrt_rtx",
        "versions": ["1.7.1"],
        "compute_capability": "8.9",
        "typing": "strong",
    }
    model = (write_device(folder / "first") / "model.onnx").read_bytes()
    with installed("rtx-1.7.1", 89) as here:
        engine = build_plan(here.trt, BuildPlan(model, typing="strong")).engine
    return write_device(folder / "device", nvidia=nvidia, extra_files={"model.engine": engine})


def test_an_engine_that_came_along(tmp_path: Path) -> None:
    folder = prebuilt(tmp_path)
    with installed("rtx-1.7.1", 89, "cuda-python"):
        assert finish(folder) == 0
    report = device_report(folder)
    assert (report["built_with"], report["engine"]["file"]) == ("prebuilt", "model.engine")
    assert report["parity"]["outputs"][0]["sqnr_db"] > 100


def test_an_engine_that_came_along_is_never_overwritten(tmp_path: Path) -> None:
    folder = prebuilt(tmp_path)
    for _ in range(2):
        with installed("rtx-1.7.1", 89, "cuda-python"):
            assert finish(folder, "--rebuild") == 0
    report = device_report(folder)
    assert (report["built_with"], report["engine"]["file"]) == ("python", "rebuilt.engine")


def test_tensorrt_rtx_has_no_trtexec(
    tmp_path: Path, trtexec: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prebuilt(tmp_path)
    monkeypatch.setenv("PATH", str(Path(trtexec()).parent))
    for module in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    assert finish(folder) == 1
    assert "tensorrt_rtx can't be imported" in device_report(folder)["problems"][0]
    assert finish(folder, "--trtexec") == 1
    assert "trtexec is of tensorrt, this folder is for tensorrt_rtx" in str(
        device_report(folder)["problems"]
    )
    assert main([str(folder), "--print-trtexec"]) == 1


@pytest.mark.parametrize("key", ["version_compatible", "hardware_compatible"])
def test_compatibility_comes_from_the_manifest(tmp_path: Path, key: str) -> None:
    for wanted in (False, True):
        folder = write_device(tmp_path / str(wanted), nvidia={key: wanted})
        plan = plan_of(read_manifest(folder), FinishOptions(folder), "python", False)
        assert getattr(plan, key) is wanted
