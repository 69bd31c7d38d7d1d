from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from device_folder import device_report, write_device

from deploy.on_device.device_error import MissingLibraryError
from deploy.on_device.finish_main import main
from deploy.on_device.trtexec_command import find_trtexec

pytestmark = pytest.mark.slow

Trtexec = Callable[..., str]


def finish(folder: Path, *flags: str) -> int:
    return main([str(folder), "--skip-latency", *flags])


def implicit(folder: Path, **changes: object) -> Path:
    return write_device(folder, precision="int8", quantization="implicit", rest="fp16", **changes)


def test_builds_compares_and_times(tmp_path: Path, trtexec: Trtexec) -> None:
    folder = write_device(tmp_path / "device")
    assert main([str(folder), "--trtexec", trtexec()]) == 0
    report = device_report(folder)
    assert (report["status"], report["built_with"]) == ("ok", "trtexec")
    assert report["device"]["compute_capability"] == "7.2"
    assert report["device"]["version"] == "8.5.2"
    assert report["parity"]["outputs"][0]["sqnr_db"] > 100  # six digits are left of float32
    assert report["latency"]["median_ms"] == 0.8
    assert report["latency"]["throughput_per_s"] == 1250.5
    assert (folder / "model.engine").read_bytes().startswith(b"engine of trtexec\n")
    assert [layer["name"] for layer in report["layers"]] == ["conv", "relu"]


def test_stands_in_where_the_bindings_are_missing(
    tmp_path: Path, trtexec: Trtexec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = write_device(tmp_path / "device")
    monkeypatch.setenv("PATH", str(Path(trtexec()).parent))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert finish(folder) == 0
    assert "going on with" in capsys.readouterr().out
    assert device_report(folder)["built_with"] == "trtexec"


def test_neither_bindings_nor_trtexec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = write_device(tmp_path / "device")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert finish(folder) == 1
    (problem,) = device_report(folder)["problems"]
    assert re.search(r"tensorrt can't be imported .*; and no trtexec at trtexec, ", problem)


@pytest.mark.parametrize(
    ("version", "typing"),
    [
        *(("8.5.2", "weak"), ("8.6.1", "weak"), ("10.3.0", "weak"), ("10.16.0", "weak")),
        *(("10.3.0", "strong"), ("10.16.0", "strong"), ("11.1.0", "strong")),
    ],
)
def test_every_flag_is_one_of_that_version(
    tmp_path: Path, trtexec: Trtexec, version: str, typing: str
) -> None:
    """The double refuses flags that the version's own option parser doesn't read."""
    changes = {"versions": [version], "typing": typing, "workspace_bytes": 3 << 19}
    precision = "fp16" if typing == "weak" else "fp32"
    folder = write_device(tmp_path / "device", nvidia=changes, precision=precision)
    assert main([str(folder), "--trtexec", trtexec(version)]) == 0
    log = (folder / "build" / "trtexec.log").read_text()
    assert "--memPoolSize=workspace:1.5 " in log
    assert ("--stronglyTyped" in log) == (typing == "strong" and version.startswith("10"))
    assert ("--buildOnly" in log) == (version == "8.5.2")


@pytest.mark.parametrize(
    ("version", "typing", "reason"),
    [
        ("8.6.1", "strong", "8.6 has no strongly typed networks"),
        ("11.1.0", "weak", "11.1 lets the graph alone decide types"),
    ],
)
def test_typing_the_version_lacks(
    tmp_path: Path, trtexec: Trtexec, version: str, typing: str, reason: str
) -> None:
    changes = {"versions": [version], "typing": typing}
    folder = write_device(tmp_path / "device", nvidia=changes)
    assert finish(folder, "--trtexec", trtexec(version)) == 1
    assert reason in device_report(folder)["problems"][0]


def test_implicit_int8_by_the_cache(tmp_path: Path, trtexec: Trtexec) -> None:
    folder = implicit(tmp_path / "device")
    assert finish(folder, "--trtexec", trtexec(float_layers=["relu"])) == 0
    report = device_report(folder)
    assert (report["int8"]["layers_int8"], report["int8"]["layers_float"]) == (1, 1)
    assert report["int8"]["not_int8"] == [
        {"name": "relu", "reason": "TensorRT chose fp16, kernel kernel_of_Relu"}
    ]
    log = (folder / "build" / "trtexec.log").read_text()
    assert "--int8 --fp16" in log
    assert "--precisionConstraints=prefer '--layerPrecisions=*:fp16,conv:int8,relu:int8'" in log


def test_int8_that_no_layer_took_fails(tmp_path: Path, trtexec: Trtexec) -> None:
    folder = implicit(tmp_path / "device")
    assert finish(folder, "--trtexec", trtexec(float_layers=["conv", "relu"])) == 3
    (problem,) = device_report(folder)["problems"]
    assert problem == "no layer runs in INT8, which this engine is for: all are fp16"


def test_a_cache_that_is_ignored_fails(tmp_path: Path, trtexec: Trtexec) -> None:
    folder = implicit(tmp_path / "device")
    tool = trtexec(accepts="TRT-8503-EntropyCalibration2", lenient=True)
    assert finish(folder, "--trtexec", tool) == 3
    report = device_report(folder)
    assert report["status"] == "failed"
    assert "calibration.cache was ignored" in report["problems"][0]
    assert "Calibration table does not match" in report["problems"][0]


def test_a_build_that_fails_for_it_says_so_first(tmp_path: Path, trtexec: Trtexec) -> None:
    folder = implicit(tmp_path / "device")
    assert finish(folder, "--trtexec", trtexec(accepts="TRT-8503-EntropyCalibration2")) == 1
    (problem,) = device_report(folder)["problems"]
    assert problem.startswith("trtexec failed: calibration.cache was ignored: TensorRT says")


def test_it_is_not_told_of_what_it_does_not_take(tmp_path: Path, trtexec: Trtexec) -> None:
    folder = implicit(tmp_path / "device")
    assert finish(folder, "--trtexec", trtexec(version="8.5.3")) == 3
    (problem,) = device_report(folder)["problems"]
    assert "tensorrt 8.5.3 is installed, this folder is for 8.5.2 (exactly" in problem
    assert "--scales ranges" not in problem


def test_a_tensor_of_the_cache_without_a_scale_fails(tmp_path: Path, trtexec: Trtexec) -> None:
    folder = implicit(tmp_path / "device")
    tool = trtexec(unscaled=["c", "(Unnamed Layer* 3) [Shuffle]_output"])
    assert finish(folder, "--trtexec", tool) == 3
    (problem,) = device_report(folder)["problems"]
    assert problem.startswith("1 tensors of calibration.cache got no scale: c;")


def test_noise_misses_the_gate(
    tmp_path: Path, trtexec: Trtexec, capsys: pytest.CaptureFixture
) -> None:
    folder = write_device(tmp_path / "device")
    assert finish(folder, "--trtexec", trtexec(noise=0.12)) == 3
    report = device_report(folder)
    (gate,) = [gate for gate in report["parity"]["gates"] if not gate["passed"]]
    assert gate["name"] == "SQNR of 'y' (dB)"
    assert gate["observed"] == pytest.approx(20 * math.log10(1 / 0.12), abs=0.01)
    assert "SQNR of 'y' (dB) is 18.42, needs 20" in capsys.readouterr().out


def test_another_gpu_is_seen_in_the_log(tmp_path: Path, trtexec: Trtexec) -> None:
    folder = write_device(tmp_path / "device")
    assert finish(folder, "--trtexec", trtexec(capability="8.7")) == 3
    (problem,) = device_report(folder)["problems"]
    assert "compute capability 8.7, this folder is for 7.2" in problem
    assert finish(folder, "--trtexec", trtexec(capability="8.7"), "--allow", "sm") == 0
    assert "compute capability 8.7" in device_report(folder)["overrides"][0]


def test_another_version_is_refused(tmp_path: Path, trtexec: Trtexec) -> None:
    folder = write_device(tmp_path / "device")
    assert finish(folder, "--trtexec", trtexec("8.6.1")) == 3
    assert "tensorrt 8.6.1 is installed, this folder is for 8.5.2" in str(
        device_report(folder)["problems"]
    )


def test_what_trtexec_says_on_failing_is_passed_on(tmp_path: Path, trtexec: Trtexec) -> None:
    folder = implicit(tmp_path / "device")
    tool = trtexec(accepts="TRT-8503-EntropyCalibration2")
    assert finish(folder, "--trtexec", tool) == 1
    (problem,) = device_report(folder)["problems"]
    assert "bound to nullptr" in problem
    assert "trtexec.log" in problem


def test_an_explicit_path_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(MissingLibraryError, match="no trtexec at /nowhere/trtexec"):
        find_trtexec("/nowhere/trtexec")


def test_dynamic_sizes(tmp_path: Path, trtexec: Trtexec) -> None:
    """The double takes a shape from --shapes alone where the graph fixes none."""
    folder = write_device(
        tmp_path / "device",
        profiles={"x": {"min": [1, 3, 8, 6], "opt": [1, 3, 8, 6], "max": [4, 3, 8, 6]}},
    )
    assert finish(folder, "--trtexec", trtexec()) == 0
    log = (folder / "build" / "trtexec.log").read_text()
    assert "--maxShapes=x:4x3x8x6" in log
    assert "--shapes=x:1x3x8x6" in log
