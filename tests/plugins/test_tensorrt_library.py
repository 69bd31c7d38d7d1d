"""plugins/CMakeLists.txt: one library with every plugin's kernel and TensorRT's glue. What compiles
is opt-in: TENSORRT_INCLUDE (see tensorrt_headers), cmake and nvcc; needs no TensorRT library."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorrt_headers import headers

from deploy import registry

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
# all that the library takes from TensorRT's
VENDOR_SYMBOLS = {"getLogger", "getPluginRegistry"}


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """CMake's first step; skips where there is no cmake or no nvcc."""
    for tool in ("cmake", "nvcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on PATH")
    command = ["cmake", "-S", str(PLUGINS), "-B", str(folder), *options]
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """CMake's message on one line."""
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def symbols(library: Path) -> set[str]:
    """What a library leaves to others, without the C and C++ libraries' versioned names."""
    command = ["nm", "-D", "--undefined-only", str(library)]
    lines = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=True
    ).stdout.splitlines()
    names = {line.split()[-1] for line in lines if " U " in line}
    return {name for name in names if "@" not in name}


@pytest.mark.parametrize(("release", "interface"), [("8.5", "V2"), ("11.1", "V3")])
def test_the_library_takes_the_interface_of_its_headers(
    release: str, interface: str, plugin_library: Callable[[str], Path]
) -> None:
    library = plugin_library(release)
    assert symbols(library) == VENDOR_SYMBOLS
    strings = library.read_bytes()
    for name in registry.names("plugin"):
        op = "".join(part.capitalize() for part in name.split("_"))
        # the mangled name of Creator<Op>'s type information
        assert f"Creator{interface}INS0_{len(op)}{op}E".encode() in strings
    other = {"V2": b"CreatorV3I", "V3": b"CreatorV2I"}[interface]
    assert other not in strings


def test_one_nvcc_command_does_the_same(tmp_path: Path) -> None:
    """The command of plugins/tensorrt/README.md for a machine without CMake."""
    include = headers("8.5")
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on PATH")
    library = tmp_path / "libonnx_deploy_plugins.so"
    command = [
        *("nvcc", "-std=c++14", "-O3", "-shared", "-Xcompiler", "-fPIC"),
        *("-gencode", "arch=compute_75,code=sm_75", "-I", ".", "-isystem", str(include)),
        *("channel_shuffle/kernel.cu", "channel_shuffle/trt_v2.cpp", "-o", str(library)),
    ]
    done = subprocess.run(
        command, cwd=PLUGINS, capture_output=True, encoding="utf-8", errors="replace"
    )
    assert done.returncode == 0, done.stderr
    assert symbols(library) == VENDOR_SYMBOLS


def test_the_compute_capability_has_to_be_given(tmp_path: Path) -> None:
    assert "CUDA_ARCHS isn't given; pass the device's compute capability" in refusal(
        configure(tmp_path)
    )


def test_missing_headers_are_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    said = refusal(configure(tmp_path, "-DCUDA_ARCHS=75", f"-DTENSORRT_INCLUDE={nowhere}"))
    assert f"no NvInfer.h and NvInferVersion.h in '{nowhere}'" in said


def test_a_missing_tensorrt_is_named(tmp_path: Path) -> None:
    include = headers("8.5")
    done = configure(tmp_path, "-DCUDA_ARCHS=75", f"-DTENSORRT_INCLUDE={include}")
    if done.returncode == 0:
        pytest.skip("this machine has libnvinfer.so where CMake looks")
    assert "no libnvinfer.so found; install libnvinfer-dev or pass -DTENSORRT_LIB" in refusal(done)


def test_a_folder_without_glue_is_named(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    options = [f"-DTENSORRT_INCLUDE={headers('8.5')}", "-DTENSORRT_LIB=none", f"-DPLUGINS={bare}"]
    said = refusal(configure(tmp_path / "build", "-DCUDA_ARCHS=75", *options))
    assert f"{bare} has no trt_v2.cpp, which TensorRT 8 needs" in said
