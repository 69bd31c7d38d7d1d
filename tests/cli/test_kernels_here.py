"""Kernels of ours on the very device, TensorRT's double with a double of nvcc: engines with and
without them race by the GPU's clock, and what is shipped is the faster one that passes.

The double's clock counts layers, so an engine with a plugin, which has fewer, is the faster one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import Gpu, installed, plugin_library

from deploy.cli import run
from deploy.plugin import libraries

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
# TensorRT, compute capability, target, precision
DEVICES = [
    ("8.5.2", 72, "xavier", "fp16"),
    ("8.5.2", 72, "xavier", "int8"),
    ("8.6.1", 70, "v100", "int8"),
    ("10.3.0", 87, "orin", "int8"),
    ("11.4.0", 80, "a100", "int8"),
    ("10.16.1", 90, "h100", "fp8"),
]


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A double of the compiler; no CMake. It counts its calls."""
    library = plugin_library(tmp_path / "double.so", "ShuffleDepthwise", "SePointwise")
    tool = tmp_path / "nvcc"
    copied = f"cp '{library}' libonnx_deploy_plugins.so"
    tool.write_text(f"#!/bin/sh\necho call >> '{tmp_path}/calls'\n{copied}\n")
    tool.chmod(0o755)
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda n, path=None: None if n == "cmake" else which(n))
    monkeypatch.setenv("NVCC", str(tool))
    monkeypatch.setenv("TENSORRT_INCLUDE", str(tmp_path))
    monkeypatch.setattr("deploy.nvidia.device.no_gpu", lambda: "")
    return tool


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """A process keeps what it compiled, and the folder it lies in."""
    for kept in (libraries._tensorrt_library, libraries._scratch):
        kept.cache_clear()
    yield
    for kept in (libraries._tensorrt_library, libraries._scratch):
        kept.cache_clear()


def headers(folder: Path, version: str) -> None:
    major, minor = version.split(".")[:2]
    text = f"#define NV_TENSORRT_MAJOR {major}\n#define NV_TENSORRT_MINOR {minor}\n"
    (folder / "NvInferVersion.h").write_text(text)


def built(folder: Path, target: str, precision: str, *more: object) -> Path:
    """A bundle of the digits network, judged on few samples."""
    few = folder.with_name("few.npz")
    with np.load(DIGITS / "test.npz") as file:
        np.savez(few, **{name: file[name][:60] for name in file.files})
    words = ("build", DIGITS / "digits.onnx", "--target", target, f"--{precision}")
    data = ("--data", DIGITS / "calib.npz", "--eval-data", few, "-o", folder)
    assert run([str(word) for word in (*words, *data, *more)]) == 0
    return folder


def read(bundle: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / name).read_text())
    return found


@pytest.mark.parametrize(("version", "sm", "target", "precision"), DEVICES)
def test_the_faster_engine_is_shipped_with_its_library(
    version: str, sm: int, target: str, precision: str, nvcc: Path, tmp_path: Path
) -> None:
    headers(tmp_path, version)
    with installed(version, gpu=Gpu(sm), memory="cuda-python"):
        bundle = built(tmp_path / "bundle", target, precision)
        assert run(["verify", str(bundle)]) == 0
        assert run(["parity", str(bundle)]) == 0
    choice = read(bundle, "precision.json")
    assert choice["measured_here"] is True
    assert choice["chosen"].endswith(" with plugins")
    ms = {row["name"]: row["median_ms"] for row in choice["tried"]}
    plain = choice["chosen"].removesuffix(" with plugins")
    # in order: 8 bits without and with them, then the float engines
    assert ms[choice["chosen"]] < ms[plain]
    assert all("measured" not in row["outcome"] for row in choice["tried"])
    assert "GPU time" in choice["reason"] and "with kernels of ours" in choice["reason"]
    assert b"ShuffleDepthwise" in (bundle / "engine/model.engine").read_bytes()
    assert (bundle / "engine/libonnx_deploy_plugins.so").is_file()
    # each kernel is compiled once, whoever asks for it
    assert len((tmp_path / "calls").read_text().split()) == 1
    report = read(bundle, "report.json")
    assert report["device"]["rung"] == "device"
    assert {row["of_device"] for row in report["measured"]["latency"].values()} == {True}
    page = (bundle / "report.html").read_text()
    assert "by the GPU's own clock" in page.replace("&#39;", "'").replace("&#x27;", "'")
    assert choice["chosen"] in page


def test_the_device_still_gets_both(nvcc: Path, tmp_path: Path) -> None:
    headers(tmp_path, "10.3.0")
    with installed("10.3.0", gpu=Gpu(87), memory="cuda-python"):
        bundle = built(tmp_path / "bundle", "orin", "int8")
    for name in ("model.onnx", "model_plain.onnx"):
        assert (bundle / "device" / name).is_file()


def test_without_a_compiler_the_plain_one_is_shipped_and_it_is_said_once(
    nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NVCC", "absent")
    with installed("10.3.0", gpu=Gpu(87), memory="cuda-python"):
        bundle = built(tmp_path / "bundle", "orin", "int8")
    choice = read(bundle, "precision.json")
    assert "with plugins" not in choice["chosen"]
    out = capfd.readouterr()
    assert (out.out + out.err).count("there's no nvcc at absent") == 2  # a warning, and the reason
    assert "; without kernels of ours: digits: the model has plugins" in choice["reason"]
    assert [p.name for p in (bundle / "engine").glob("*.so")] == []


def test_no_search_takes_the_placement_as_it_is(nvcc: Path, tmp_path: Path) -> None:
    with installed("10.3.0", gpu=Gpu(87), memory="cuda-python"):
        bundle = built(tmp_path / "bundle", "orin", "fp16", "--search-s", 0)
    assert b"ShuffleDepthwise" not in (bundle / "engine/model.engine").read_bytes()
    assert not (bundle / "precision.json").exists()
    assert not (tmp_path / "calls").exists()
