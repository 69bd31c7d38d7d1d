"""finish.py's choice about kernels of ours, from the build to the report of the bundle: the double
of TensorRT stands for the device, a script for its nvcc."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from doubles import plugin_library

from deploy.cli import run

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
# runs the folder's finish.py with the doubles, without waiting for clocks to rise
OVER_DOUBLES = """
import runpy, sys
sys.path.insert(0, {tests!r})
from doubles import installed
with installed("8.5.2", 72):
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def xavier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins") / "bundle"
    data = ("--data", DIGITS / "calib.npz", "--eval-data", DIGITS / "test.npz")
    words = ("build", DIGITS / "digits.onnx", "--target", "xavier", "--int8", "--effort", "fast")
    assert run([str(word) for word in (*words, *data, "-o", folder)]) == 0
    return folder


@pytest.fixture
def device(xavier: Path, tmp_path: Path) -> Path:
    """What was sent, on a device with headers; `nvcc` there gives a double of the library."""
    library = plugin_library(tmp_path / "double.so", "ShuffleDepthwise")
    nvcc = tmp_path / "nvcc"
    copy = f"import shutil; shutil.copyfile({str(library)!r}, 'libonnx_deploy_plugins.so')"
    nvcc.write_text(f"#!{sys.executable}\n{copy}\n")
    nvcc.chmod(0o755)
    version = "#define NV_TENSORRT_MAJOR 8\n#define NV_TENSORRT_MINOR 5\n"
    (tmp_path / "NvInferVersion.h").write_text(version)
    return Path(shutil.copytree(xavier / "device", tmp_path / "device"))


def finished(device: Path, *flags: str, nvcc: str = "nvcc") -> dict[str, Any]:
    """The report of a run of finish.py as a program."""
    driver = device.parent / "over_doubles.py"
    driver.write_text(OVER_DOUBLES.format(tests=str(ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(driver), "finish.py", "--runs", "20", *flags],
        cwd=device,
        env={
            "PATH": "",
            "NVCC": str(device.parent / nvcc),
            "TENSORRT_INCLUDE": str(device.parent),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((device / "device_report.json").read_text())
    return found


def test_the_kept_engine_its_library_and_the_reason_reach_the_bundle(
    xavier: Path, device: Path, tmp_path: Path
) -> None:
    report = finished(device)
    choice = report["plugin_choice"]
    # fewer layers, which are all that take time on the double
    assert choice["with"]["gpu_median_ms"] < choice["without"]["gpu_median_ms"]
    assert choice["chosen"] == "with plugins"
    (row,) = report["plugins"]
    bundle = Path(shutil.copytree(xavier, tmp_path / "bundle"))
    assert run(["import", str(bundle), str(device)]) == 0
    engine = (bundle / "engine/model.engine").read_bytes()
    assert b"ShuffleDepthwise" in engine
    name = Path(row["library"]).name
    assert (bundle / "engine" / name).read_bytes() == (device / row["library"]).read_bytes()
    said = "Kernels of our own are in the engine: "
    assert said + choice["reason"] in (bundle / "report.html").read_text()
    assert run(["verify", str(bundle)]) == 0


def test_a_library_that_changed_on_the_way_is_refused(
    xavier: Path, device: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = finished(device)["plugins"]
    (device / row["library"]).write_bytes(b"another")
    bundle = Path(shutil.copytree(xavier, tmp_path / "bundle"))
    assert run(["import", str(bundle), str(device)]) == 1
    assert f"{row['library']} has sha256" in capsys.readouterr().err


def test_a_device_without_a_compiler_does_without(
    xavier: Path, device: Path, tmp_path: Path
) -> None:
    report = finished(device, nvcc="none")
    assert report["plugins"] == []
    bundle = Path(shutil.copytree(xavier, tmp_path / "bundle"))
    assert run(["import", str(bundle), str(device)]) == 0
    page = (bundle / "report.html").read_text()
    assert "Kernels of our own are left out of the engine: no engine with plugins: " in page
    assert [p.name for p in (bundle / "engine").iterdir()] == ["model.engine"]
