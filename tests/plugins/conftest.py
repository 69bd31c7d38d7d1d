"""The plugin library for TensorRT, built once per release and test run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorrt_headers import headers

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
# any that nvcc knows: nothing runs
ARCHITECTURE = "75"


@pytest.fixture(scope="session")
def plugin_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """libonnx_deploy_plugins.so for a release of TensorRT ("8.5"), by CMake and nvcc; skips where
    one of them or the headers are missing."""
    built: dict[str, Path] = {}

    def build(release: str) -> Path:
        include = headers(release)
        for tool in ("cmake", "nvcc"):
            if shutil.which(tool) is None:
                pytest.skip(f"no {tool} on PATH")
        if release not in built:
            folder = tmp_path_factory.mktemp("plugin_library")
            options = [f"-DCUDA_ARCHS={ARCHITECTURE}", f"-DTENSORRT_INCLUDE={include}"]
            configure = ["cmake", "-S", str(PLUGINS), "-B", str(folder), *options]
            for command in (
                [*configure, "-DTENSORRT_LIB=none"],
                ["cmake", "--build", str(folder)],
            ):
                done = subprocess.run(
                    command, capture_output=True, encoding="utf-8", errors="replace"
                )
                assert done.returncode == 0, done.stdout + done.stderr
            built[release] = folder / "libonnx_deploy_plugins.so"
        return built[release]

    return build
