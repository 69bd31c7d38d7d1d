"""Which workers compute what this machine computes: versions, instruction set, vendor library."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from deploy.backends import reference

MISSING = "missing"
# the distribution that a backend can't do without
_VENDORS = {"ov": "openvino", "trt": "tensorrt", "rtx": "tensorrt-rtx"}
_PACKAGES = ("onnx-deploy", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Needs:
    """What tasks ask of a worker. backend: its vendor library has to be there.

    all_cores: kernels may be chosen by the model of CPU and the number of cores, so both count.
    """

    backend: str = ""
    all_cores: bool = False


def facts() -> dict[str, str]:
    """What decides the numbers on the machine that calls it; `missing` is a value like others."""
    found = {name: _version(name) for name in (*_PACKAGES, *_VENDORS.values())}
    found["python"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    found["instructions"] = " ".join([platform.machine(), *simd["found"]])
    found["cpu"] = _cpu()
    found["cores"] = str(reference.cores())
    return found


def why_not(here: Mapping[str, str], there: Mapping[str, str], needs: Needs) -> str | None:
    """Why a worker with the facts `there` would not give this machine's numbers; None if it would.

    A vendor library that only the worker has is one that this machine can't be compared in: there
    nothing else of the hardware counts.
    """
    vendor = _VENDORS.get(needs.backend)
    names = ["python", *_PACKAGES]
    if vendor and there.get(vendor, MISSING) == MISSING:
        return f"{vendor} is missing"
    if not vendor or here[vendor] != MISSING:
        names += [vendor] if vendor else []
        names += ["instructions", *(["cpu", "cores"] if needs.all_cores else [])]
    for name in names:
        if there.get(name, MISSING) != here[name]:
            return f"{name} {there.get(name, MISSING)}, here {here[name]}"
    return None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return MISSING


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or os.name
