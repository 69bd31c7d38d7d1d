"""Where the headers lie that the opt-in tests of TensorRT's glue compile against.

No package has TensorRT's headers. TENSORRT_INCLUDE is a folder of them, or one with a folder per
version that holds them or an `include`; they are in NVIDIA's TensorRT repository, at its tags. Up
to 9.2 they are under NVIDIA's own licence: use them, don't pass them on.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

# the releases whose headers the glue has to compile against
RELEASES = ("8.5", "8.6", "10.3", "10.16", "11.1")


@functools.cache
def include_folders() -> dict[str, Path]:
    """Folder of NvInfer.h by release ("8.5"); empty when TENSORRT_INCLUDE says nothing."""
    given = os.environ.get("TENSORRT_INCLUDE")
    if not given:
        return {}
    root = Path(given)
    folders = [root, *sorted(root.glob("*/")), *sorted(root.glob("*/include"))]
    return {_release(f): f for f in folders if (f / "NvInferVersion.h").is_file()}


def headers(release: str) -> Path:
    """That release's folder; skips the test where there is none."""
    found = include_folders()
    if release not in found:
        has = (
            f"has {', '.join(found)}" if found else "isn't set to a folder with TensorRT's headers"
        )
        pytest.skip(f"no headers of TensorRT {release}: TENSORRT_INCLUDE {has}")
    return found[release]


@functools.cache
def cuda_include() -> Path:
    """The folder of cuda_runtime_api.h of the nvcc on PATH; skips the test where there is none."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on PATH, so no CUDA headers")
    said = subprocess.run(
        [nvcc, "--dryrun", "-E", "-x", "cu", os.devnull],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    ).stderr
    found = re.search(r'INCLUDES="-I([^"]+)"', said)
    assert found, said
    return Path(found.group(1))


def cxx() -> str:
    """The C++ compiler; skips the test where there is none."""
    found = shutil.which("g++") or shutil.which("c++")
    if found is None:
        pytest.skip("no C++ compiler")
    return found


def _release(folder: Path) -> str:
    text = (folder / "NvInferVersion.h").read_text(encoding="utf-8")
    numbers = dict(
        re.findall(r"#define +(?:NV_TENSORRT|TRT)_(MAJOR|MINOR)(?:_ENTERPRISE)? +(\d+)", text)
    )
    return f"{numbers['MAJOR']}.{numbers['MINOR']}"
