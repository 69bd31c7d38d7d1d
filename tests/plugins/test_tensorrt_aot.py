"""The ahead-of-time Python plugins: their kernels compile to PTX, and the real `tensorrt.plugin` of
each release takes them and gets the right numbers. The latter is opt-in: TENSORRT_BINDINGS (see
fetch_tensorrt_bindings), and a Python for them that has NumPy, below 2.4 for TensorRT 10."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from stubbed_tensorrt import python_for

HERE = Path(__file__).resolve().parent
PLUGINS = HERE.parents[1] / "plugins"
SHUFFLE = {"groups": 3, "strides": [2, 2], "pads": [1, 0, 1, 2], "activation": "Relu\0"}
SCALES = {"x_scale": 0.1, "y_scale": 0.25}


def module_of(folder: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"{folder}_{name}", PLUGINS / folder / f"{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kernel_sources(op: str) -> list[str]:
    """The op's kernel in float32, float16 and int8."""
    source = module_of(op, "aot").kernel_source
    kinds = ("FLOAT", "HALF", "INT8")
    if op == "channel_shuffle":
        return [source(size, 4) for size in (4, 2, 1)]
    if op == "se_pointwise":
        return [source(kind, **SCALES) for kind in kinds]
    return [source(kind, 5, **SHUFFLE, **SCALES) for kind in kinds]


@pytest.mark.parametrize("op", ["channel_shuffle", "se_pointwise", "shuffle_depthwise"])
def test_every_kernel_becomes_ptx(op: str) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on PATH")
    to_ptx = module_of("tensorrt", "ptx").by_nvcc(PLUGINS / op, "7.5")
    for source in kernel_sources(op):
        ptx = to_ptx(source)
        assert f".visible .entry onnx_deploy_{op}(".encode() in ptx
        assert b".target sm_75" in ptx


@pytest.mark.parametrize("op", ["channel_shuffle", "se_pointwise", "shuffle_depthwise"])
def test_nvrtc_does_it_without_nvcc(op: str) -> None:
    """With NVIDIA's wheels cuda_nvrtc, cuda_runtime and cuda_nvcc: libraries and headers."""
    places = [path for entry in sys.path for path in Path(entry).glob("nvidia/*/")]
    libraries = [str(file) for place in places for file in place.glob("lib/libnvrtc.so.*")]
    includes = [place / "include" for place in places if (place / "include").is_dir()]
    if not libraries or not any((folder / "crt").is_dir() for folder in includes):
        pytest.skip("NVIDIA's wheels cuda_nvrtc, cuda_runtime and cuda_nvcc aren't installed")
    to_ptx = module_of("tensorrt", "ptx").by_nvrtc(PLUGINS / op, "7.5", libraries[0], includes)
    for source in kernel_sources(op):
        assert f".visible .entry onnx_deploy_{op}(".encode() in to_ptx(source)
    with pytest.raises(ValueError, match=r"(?s)NVRTC failed.*no_such_name"):
        to_ptx('extern "C" __global__ void k() { no_such_name(); }')


def test_what_does_not_compile_says_why() -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on PATH")
    to_ptx = module_of("tensorrt", "ptx").by_nvcc(PLUGINS / "channel_shuffle", "7.5")
    with pytest.raises(ValueError, match=r"(?s)nvcc failed.*no_such_name"):
        to_ptx('extern "C" __global__ void k() { no_such_name(); }')


def test_attributes_are_compiled_in() -> None:
    source = kernel_sources("shuffle_depthwise")[2]
    found = re.search(r"Params const p\{([^}]*)\}", source)
    assert found is not None
    given = "2, 0, batch, channels, height, width, 3, 5, 2, 1, 0, 1, 2, 1,"
    assert " ".join(found.group(1).split()) == f"{given} 1.000000000e-01f, 2.500000000e-01f"


@pytest.mark.parametrize("version", ["10.9", "10.13", "10.16", "11.4"])
def test_tensorrt_takes_them(version: str) -> None:
    nodes = answers(version)
    float_shuffle, int8_shuffle = (n for n in nodes if n["op"] == "shuffle_depthwise")
    floats = ["FLOAT-FLOAT-FLOAT-FLOAT-FLOAT", "HALF-HALF-HALF-FLOAT-HALF"]
    assert float_shuffle["shape"] == [2, 12, 6, 5]
    assert float_shuffle["type"] == "HALF"
    assert float_shuffle["combinations"] == floats
    assert launch_of(float_shuffle) == ((3, 1, 1), (256, 1, 1), 0)  # 720 outputs
    assert float_shuffle["extra"] == [2, 12, 11, 9]
    assert int8_shuffle["shape"] == [2, 12, 5, 4]
    assert int8_shuffle["combinations"] == [*floats, "INT8-FLOAT-FLOAT-FLOAT-INT8"]
    assert launch_of(int8_shuffle) == ((2, 1, 1), (256, 1, 1), 0)

    float_se, int8_se = (n for n in nodes if n["op"] == "se_pointwise")
    assert float_se["shape"] == [2, 130, 5, 7]
    assert launch_of(float_se) == ((3, 2, 1), (256, 1, 1), 8704)  # 3 tiles of 64 channels
    assert float_se["extra"] == [2, 6, 130, 35]
    assert "INT8" not in "".join(float_se["combinations"])
    assert int8_se["type"] == "INT8"
    assert int8_se["combinations"][-1] == "INT8-FLOAT-FLOAT-FLOAT-FLOAT-INT8"
    assert launch_of(int8_se) == ((6, 2, 1), (128, 1, 1), 17408)  # 6 tiles of 64 positions

    maps, rows = (n for n in nodes if n["op"] == "channel_shuffle")
    assert maps["shape"] == [2, 12, 5, 7]
    assert launch_of(maps) == ((6, 1, 1), (64, 4, 1), 0)  # 24 maps
    assert maps["extra"] == [2, 12, 35]
    assert rows["extra"] == [2, 12, 1]
    assert maps["combinations"] == ["FLOAT-FLOAT", "HALF-HALF", "INT8-INT8"]

    for node in nodes:
        assert node["kernel"] == f"onnx_deploy_{node['op']}"
        assert f"{node['kernel']}(" in node["source"]


def launch_of(node: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Grid, block and bytes of shared memory."""
    launch = node["launch"]
    grid, block = (tuple(launch[f"{of}_{axis}"] for axis in "xyz") for of in ("grid", "block"))
    return grid, block, launch["shared_mem"]


def answers(version: str) -> list[dict[str, Any]]:
    """What in_plugin_api.py prints for a version, by the Python that its wheel is for."""
    given = os.environ.get("TENSORRT_BINDINGS")
    sites = sorted(Path(given).glob(f"{version}*/")) if given else []
    if not sites:
        pytest.skip(f"no bindings of TensorRT {version} in TENSORRT_BINDINGS = {given}")
    python, wanted = python_for(sites[0])
    if python is None:
        pytest.skip(f"TensorRT {version} needs Python {wanted}; none was found")
    said = subprocess.run(
        [python, "-c", "import numpy; print(numpy.__version__)"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if said.returncode:
        pytest.skip(f"{python} has no NumPy")
    numpy = tuple(int(part) for part in said.stdout.split(".")[:2])
    if version.startswith("10.") and numpy >= (2, 4):
        pytest.skip(f"TensorRT 10's plugin API fails with NumPy {said.stdout.strip()}; below 2.4")
    command = [python, "-B", str(HERE / "in_plugin_api.py"), str(sites[0]), str(PLUGINS)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stderr
    # TensorRT's own warning that the API is experimental goes to stdout too
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["version"].startswith(version)
    nodes = found["nodes"]
    assert isinstance(nodes, list)
    return nodes
