"""Makes `device_folder` importable; doubles of trtexec, which runs ONNX Runtime, and of nvcc."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles import plugin_library

from deploy.on_device import latency_check

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
HEADERS = "#define NV_TENSORRT_MAJOR 8\n#define NV_TENSORRT_MINOR 5\n"
TRTEXEC = HERE.parents[1] / "doubles" / "trtexec_double.py"


@pytest.fixture
def trtexec(tmp_path: Path) -> Callable[..., str]:
    """A trtexec of that version as an executable; settings as tests/doubles/trtexec_double.py."""

    def make(version: str = "8.5.2", capability: str = "7.2", **settings: Any) -> str:
        text = json.dumps({"version": version, "capability": capability, **settings})
        path = tmp_path / "bin" / "trtexec"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{TRTEXEC}' '{text}' \"$@\"\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No warming up of a second."""
    monkeypatch.setattr(latency_check, "_WARM_UP_S", 0.0)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A double of nvcc, to be changed by tests, and headers; no CMake."""
    library = plugin_library(tmp_path / "double.so", "ChannelShuffle")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"#!/bin/sh\ncp '{library}' libonnx_deploy_plugins.so\n")
    nvcc.chmod(0o755)
    (tmp_path / "NvInferVersion.h").write_text(HEADERS)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: name if "/" in name else None)
    monkeypatch.setenv("NVCC", str(nvcc))
    monkeypatch.setenv("TENSORRT_INCLUDE", str(tmp_path))
    return nvcc
