"""A plugin library that TensorRT's library isn't linked to finds it in the process all the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stubbed_tensorrt import python_for

from deploy.on_device.running_library import loaded_library, promote_symbols, running_library

ROOT = Path(__file__).resolve().parents[3]
LIBRARY = "int getPluginRegistry(void) { return 7; }"
PLUGIN = "int getPluginRegistry(void); int asked = 0; int ask(void) { return getPluginRegistry(); }"
# as TensorRT's module does: the library for itself; then what was linked with nothing
LOADS = """
import ctypes, json, sys
sys.path.insert(0, {root!r})
from deploy.on_device.running_library import promote_symbols, running_library
kept = ctypes.CDLL({library!r})
def load():
    try:
        return ctypes.CDLL({plugin!r}).ask()
    except OSError as error:
        return str(error)
before, path = load(), promote_symbols(77)
print(json.dumps([before, path, load(), running_library(78)]))
"""


def test_the_library_this_process_runs() -> None:
    maps = (
        "7f00-7f01 r-xp 00000000 08:01 12  /opt/my venv/tensorrt_libs/libnvinfer.so.10\n"
        "7f02-7f03 r-xp 00000000 08:01 13  /usr/lib/libnvinfer_plugin.so.8\n"
        "7f04-7f05 r-xp 00000000 08:01 14  /usr/lib/aarch64-linux-gnu/libnvinfer.so.8.5.2\n"
    )
    assert loaded_library("libnvinfer.so.10", maps) == "/opt/my venv/tensorrt_libs/libnvinfer.so.10"
    assert loaded_library("libnvinfer.so.8", maps).endswith("aarch64-linux-gnu/libnvinfer.so.8.5.2")
    assert loaded_library("libnvinfer.so.1", maps) == ""


def test_without_one_nothing_is_promoted() -> None:
    assert running_library(7777) == promote_symbols(7777) == ""


def compiled(source: str, target: Path) -> Path:
    """A C source as a shared object; skips without a compiler."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source_file = target.with_suffix(".c")
    source_file.write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(target), str(source_file)], check=True)
    return target


def test_symbols_of_a_library_that_was_loaded_for_itself(tmp_path: Path) -> None:
    library = compiled(LIBRARY, tmp_path / "libnvinfer.so.77")
    plugin = compiled(PLUGIN, tmp_path / "plugin.so")
    script = LOADS.format(root=str(ROOT), library=str(library), plugin=str(plugin))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, path, after, other = json.loads(done.stdout)
    assert "undefined symbol: getPluginRegistry" in before
    assert (path, after, other) == (str(library), 7, "")


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What open_library_852.py prints; opt-in: TENSORRT_852, the unpacked wheel of 8.5.2.2 for
    Python 3.10, and TENSORRT_INCLUDE with 8.5.2/include, as tests/plugins/test_tensorrt_registry.py
    has them."""
    given = os.environ.get("TENSORRT_852")
    if not given:
        pytest.skip("TENSORRT_852 isn't set")
    python, wanted = python_for(Path(given))
    if python is None:
        pytest.skip(f"{given} needs Python {wanted}; none was found")
    include = Path(os.environ.get("TENSORRT_INCLUDE", "")) / "8.5.2" / "include"
    for tool in ("cc", "nvcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on PATH")
    if not (include / "NvInfer.h").is_file():
        pytest.skip("TENSORRT_INCLUDE has no 8.5.2/include")
    library = tmp_path / "libonnx_deploy_plugins.so"
    source = ROOT / "plugins" / "channel_shuffle"
    command = [
        *("nvcc", "-std=c++14", "-shared", "-Xcompiler", "-fPIC"),
        *("-gencode", "arch=compute_75,code=sm_75", "-I", str(ROOT / "plugins")),
        *("-isystem", str(include), str(source / "kernel.cu"), str(source / "trt_v2.cpp")),
        *("-o", str(library)),
    ]
    subprocess.run(command, check=True)

    def run() -> dict[str, Any]:
        script = Path(__file__).with_name("open_library_852.py")
        words = [python, "-B", str(script), given, str(library)]
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


def test_a_real_tensorrt_takes_a_library_that_was_built_open(
    loaded: Callable[..., dict[str, Any]],
) -> None:
    found = loaded()
    assert found["version"] == "8.5.2.2"
    assert "undefined symbol" in found["before"]
    assert found["creator"] == ["ChannelShuffle", "1"]
