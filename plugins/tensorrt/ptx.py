"""PTX from CUDA source, by nvcc or by NVRTC: what TensorRT 10.9 and later takes into an engine.

Loaded by path, like the plugin folders. Needs neither a GPU nor TensorRT.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

# CUDA source in, PTX out
ToPtx = Callable[[str], bytes]


def by_nvcc(folder: Path, capability: str, nvcc: str = "nvcc") -> ToPtx:
    """A compiler for sources that include files of `folder`; `capability`: "9.0".

    Its ValueError carries what nvcc said.
    """
    command = [nvcc, "-ptx", "-x", "cu", f"-arch=compute_{capability.replace('.', '')}"]

    def to_ptx(source: str) -> bytes:
        done = subprocess.run(
            [*command, "-std=c++14", "-I", str(folder), "-o", "-", "-"],
            input=source.encode(),
            capture_output=True,
        )
        if done.returncode:
            raise ValueError(f"{nvcc} failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    return to_ptx


def by_nvrtc(folder: Path, capability: str, library: str, cuda_includes: Sequence[Path]) -> ToPtx:
    """The same with NVRTC: `library` is libnvrtc.so, `cuda_includes` the folders of cuda_fp16.h and
    mma.h and of their crt/."""
    nvrtc = ctypes.CDLL(library)
    options = [
        f"--gpu-architecture=compute_{capability.replace('.', '')}",
        "--std=c++14",
        *(f"--include-path={include}" for include in (folder, *cuda_includes)),
    ]

    def text_of(program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{what}")(program, text)
        return text.value

    def to_ptx(source: str) -> bytes:
        program = ctypes.c_void_p()
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"plugin.cu", 0, None, None
        )
        try:
            given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if nvrtc.nvrtcCompileProgram(program, len(options), given):
                log = text_of(program, "ProgramLog").decode(errors="replace").strip()
                raise ValueError(f"NVRTC failed: {log}")
            return text_of(program, "PTX")
        finally:
            nvrtc.nvrtcDestroyProgram(ctypes.byref(program))

    return to_ptx
