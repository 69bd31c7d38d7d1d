"""The plugins' CUDA kernels as Python functions that run on the CPU.

The kernel source itself is compiled, as C++ with `plugins/cuda_on_cpu` in the place of CUDA's
headers, and called through its launcher. Outputs lie between guard bytes; a kernel that writes
outside fails.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
SHIM = Path(__file__).parent / "plugins" / "cuda_on_cpu"
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int8): 2}
SANITIZE = "CUDA_ON_CPU_SANITIZE"
_FLAGS = ["-x", "c++", "-std=c++17", "-O1", "-g1", "-shared", "-fPIC"]
_CHECKS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
_GUARD = 64


def compile_kernels(
    op: str, folder: Path, source: Path | None = None, options: Sequence[str] = ()
) -> ctypes.CDLL:
    """The op's `kernel.cu` as a library of this CPU, from the folder `source` if not the op's own,
    with further `options` of the compiler; skips where no g++ is."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ isn't there to compile the kernels for the CPU; install it")
    source = (source or PLUGINS / op) / "kernel.cu"
    library = folder / f"{op}.so"
    sanitize = (
        ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        if os.environ.get(SANITIZE)
        else []
    )
    includes = [f"-I{SHIM}", f"-I{source.parent}"]
    command = [compiler, *_FLAGS, *_CHECKS, *options, *sanitize, *includes]
    command += [str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


class ShuffleDepthwiseParams(ctypes.Structure):
    """plugins/shuffle_depthwise/params.h"""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("type", "weight_type", "batch", "channels")),
        *((name, ctypes.c_int) for name in ("height", "width", "groups", "kernel", "stride")),
        *((f"pad_{side}", ctypes.c_int) for side in ("top", "left", "bottom", "right")),
        ("relu", ctypes.c_int),
        ("x_scale", ctypes.c_float),
        ("y_scale", ctypes.c_float),
    )


class SePointwiseParams(ctypes.Structure):
    """plugins/se_pointwise/params.h"""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("type", "weight_type", "batch", "channels")),
        *((name, ctypes.c_int) for name in ("out_channels", "positions")),
        ("x_scale", ctypes.c_float),
        ("y_scale", ctypes.c_float),
    )


class ChannelShuffleParams(ctypes.Structure):
    """plugins/channel_shuffle/params.h"""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in ("element_bytes", "batch", "channels", "groups", "positions")
    )


def placed(array: np.ndarray, offset: int) -> np.ndarray:
    """The same numbers `offset` elements behind a 16-byte boundary, and nothing behind them."""
    for front in range(16 // array.itemsize):
        # the allocation ends with the array, so that a sanitizer sees what is read behind it
        room = np.empty(front + array.size, array.dtype)
        copy = room[front:].reshape(array.shape)
        if (copy.ctypes.data // array.itemsize - offset) * array.itemsize % 16 == 0:
            copy[...] = array
            return copy
    raise AssertionError(f"{array.dtype} arrays don't start at a multiple of their size")


def call(
    launch: Callable[..., int],
    params: ctypes.Structure,
    inputs: list[np.ndarray | None],
    shape: tuple[int, ...],
    offset: int = 0,
) -> np.ndarray:
    """y of that shape and of x's type, as the launcher writes it; RuntimeError for its refusal.

    offset: how many elements behind a 16-byte boundary x lies; the next input twice as many, and
    so on to y.
    """
    copies = [None if a is None else placed(a, offset * i) for i, a in enumerate(inputs, 1)]
    assert copies[0] is not None
    guarded = np.full(int(np.prod(shape)) + 2 * _GUARD, 90, copies[0].dtype)
    guarded = placed(guarded, offset * (len(inputs) + 1))
    pointers = [None if a is None else ctypes.c_void_p(a.ctypes.data) for a in copies]
    y = guarded[_GUARD:-_GUARD]
    status = launch(ctypes.byref(params), *pointers, ctypes.c_void_p(y.ctypes.data), None)
    if status != 0:
        raise RuntimeError(f"the launcher returned {status}")
    assert (guarded[:_GUARD] == 90).all(), "the kernel wrote before its output"
    assert (guarded[-_GUARD:] == 90).all(), "the kernel wrote behind its output"
    return y.reshape(shape).copy()


def shuffle_depthwise_params(
    x: np.ndarray, w: np.ndarray, attributes: dict[str, Any]
) -> ShuffleDepthwiseParams:
    """The launcher's struct for an ONNX node with those attributes."""
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return ShuffleDepthwiseParams(
        type=TYPES[x.dtype],
        weight_type=TYPES[w.dtype],
        **dict(zip(("batch", "channels", "height", "width"), x.shape, strict=True)),
        groups=attributes.get("groups", 1),
        kernel=w.shape[2],
        stride=attributes.get("strides", (1, 1))[0],
        pad_top=top,
        pad_left=left,
        pad_bottom=bottom,
        pad_right=right,
        relu=attributes.get("activation", "") == "Relu",
        x_scale=attributes.get("x_scale", 0),
        y_scale=attributes.get("y_scale", 0),
    )


def se_pointwise_params(
    x: np.ndarray, w: np.ndarray, attributes: dict[str, Any]
) -> SePointwiseParams:
    """The launcher's struct for an ONNX node with those attributes."""
    return SePointwiseParams(
        type=TYPES[x.dtype],
        weight_type=TYPES[w.dtype],
        batch=x.shape[0],
        channels=x.shape[1],
        out_channels=w.shape[0],
        positions=x.shape[2] * x.shape[3],
        x_scale=attributes.get("x_scale", 0),
        y_scale=attributes.get("y_scale", 0),
    )


def channel_shuffle_params(x: np.ndarray, groups: int) -> ChannelShuffleParams:
    """The launcher's struct for x[N, C, ...]."""
    positions = int(np.prod(x.shape[2:]))
    return ChannelShuffleParams(x.itemsize, *x.shape[:2], groups, positions)
