"""What a figure was measured on: every benchmark prints it first."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe() -> str:
    """CPU, cores, and the versions that matter, on one line."""
    cpu = platform.processor() or "unknown CPU"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].split(":")[1].strip() if lines else cpu
    packages = ("openvino", "onnxruntime", "onnx", "numpy", "click")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    cores = len(os.sched_getaffinity(0))
    return f"{cpu}, {cores} cores; Python {platform.python_version()}, {versions}"
