"""The CUDA kernels compile, without warnings and without registers spilled to memory.

With nvcc on PATH: for two compute capabilities, or with ONNX_DEPLOY_ALL_SM=1 for every one that
nvcc 13 knows. For 7.2 (Xavier), which nvcc 13 has dropped, through NVRTC: set CUDA_WHEELS to a
site-packages folder with nvidia-cuda-nvrtc-cu11 (or -cu12), nvidia-cuda-runtime and
nvidia-cuda-nvcc (for its headers) of the same CUDA.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cuda_kernels import PLUGINS

pytestmark = pytest.mark.slow

OPS = {
    "channel_shuffle": ["channel_shuffle::shuffle"],
    "se_pointwise": [
        f"se_pointwise::tiled<{types}>"
        for types in (
            "float, float",
            "__half, __half",
            "signed char, float",
            "signed char, signed char",
        )
    ],
    "shuffle_depthwise": [
        f"shuffle_depthwise::{kernel}"
        for x in ("float", "__half", "signed char")
        for kernel in (
            *(f"tiled<{x}, {size}, {stride}>" for size in (3, 5) for stride in (1, 2)),
            f"untiled<{x}>",
            *(f"tensor<{x}, {stride}>" for stride in (1, 2) if x != "float"),
        )
    ],
}
FEW = ("75", "90")
ALL = ("75", "80", "86", "87", "88", "89", "90", "100", "103", "110", "120", "121")


def test_every_kernel_is_listed() -> None:
    assert set(OPS) == {path.parent.name for path in PLUGINS.glob("*/kernel.cu")}


@pytest.mark.parametrize("op", OPS)
def test_nvcc(op: str, tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc isn't on PATH; install the CUDA toolkit to compile the kernels")
    chips = ALL if os.environ.get("ONNX_DEPLOY_ALL_SM") == "1" else FEW
    options = [f"-gencode=arch=compute_{chip},code=sm_{chip}" for chip in chips]
    checks = ["-Werror", "all-warnings", "-Xcompiler=-Wall", "-Xptxas=-v"]
    source, target = PLUGINS / op / "kernel.cu", tmp_path / "kernel.o"
    done = subprocess.run(
        ["nvcc", "-std=c++14", "--threads=2", *options, *checks, "-c", source, "-o", target],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(
        r"Compiling entry function '(\w+)' for '(\w+)'(?:.*\n)*?.* (\d+) bytes spill stores",
        done.stderr,
    )
    assert len(found) == len(OPS[op]) * len(chips), done.stderr
    # plain kernels call the division's subroutine, which saves a register; the others call nothing
    assert [entry for entry in found if entry[2] != "0" and "untiled" not in entry[0]] == []


@pytest.mark.parametrize("op", OPS)
def test_nvrtc_for_xavier(op: str) -> None:
    folder = os.environ.get("CUDA_WHEELS")
    libraries = sorted(Path(folder).glob("nvidia/*/lib/libnvrtc.so.1[12]*")) if folder else []
    if not libraries:
        pytest.skip("CUDA_WHEELS isn't a site-packages folder with an NVRTC of CUDA 11 or 12")
    includes = [path for path in Path(folder or "").glob("nvidia/*/include") if path.is_dir()]
    cubin = compiled(libraries[0], op, [PLUGINS / op, *includes], "sm_72")
    assert cubin.startswith(b"\x7fELF")


def compiled(library: Path, op: str, includes: list[Path], architecture: str) -> bytes:
    """The op's kernels as machine code, by NVRTC; AssertionError with its log."""
    for builtins in library.parent.glob("libnvrtc-builtins.so*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(library))
    program = ctypes.c_void_p()
    code = b'#include "kernel.cuh"\n'
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), code, b"kernel.cu", 0, None, None) == 0
    for name in OPS[op]:
        assert nvrtc.nvrtcAddNameExpression(program, name.encode()) == 0
    options = [f"--gpu-architecture={architecture}", "--std=c++14", *(f"-I{i}" for i in includes)]
    pointers = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), pointers)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetCUBIN(program, cubin) == 0
    return cubin.raw
