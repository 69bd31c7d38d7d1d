"""The kernels that TensorRT's ahead-of-time plugins launch compute the NumPy truth: their CUDA
source runs on the CPU, with the arguments in TensorRT's order (inputs, sizes, output)."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from cuda_kernels import PLUGINS, SHIM

from deploy import registry

TYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8}
TOLERANCE = {"FLOAT": 1e-5, "HALF": 1e-3}
LAUNCH = """
extern "C" int launch(void** arguments, unsigned const* d, size_t shared) {{
  return cudaLaunchKernel({kernel}, dim3(d[0], d[1], d[2]), dim3(d[3], d[4], d[5]), arguments,
                          shared, nullptr);
}}
"""


def aot_of(op: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"aot_{op}", PLUGINS / op / "aot.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def launched(
    source: str,
    op: str,
    folder: Path,
    inputs: list[np.ndarray],
    sizes: tuple[int, ...],
    y: np.ndarray,
    geometry: tuple[tuple[int, int, int], tuple[int, int, int], int],
) -> np.ndarray:
    """y as the kernel fills it; geometry: grid, block, bytes of shared memory."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ isn't there to compile the kernels for the CPU; install it")
    file, library = folder / "kernel.cpp", folder / "kernel.so"
    launch = LAUNCH.format(kernel=aot_of(op).KERNEL)
    file.write_text(f"#include <cuda_runtime.h>\n{source}\n{launch}", encoding="utf-8")
    includes = [f"-I{SHIM}", f"-I{PLUGINS / op}"]
    command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", *includes]
    done = subprocess.run(
        [*command, str(file), "-o", str(library)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, done.stderr
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in inputs]
    given = [*pointers, *(ctypes.c_int(size) for size in sizes), ctypes.c_void_p(y.ctypes.data)]
    arguments = (ctypes.c_void_p * len(given))(*(ctypes.addressof(value) for value in given))
    grid, block, shared = geometry
    dims = (ctypes.c_uint * 6)(*grid, *block)
    assert ctypes.CDLL(str(library)).launch(arguments, dims, ctypes.c_size_t(shared)) == 0
    return y


def drawn(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    if kind == "INT8":
        return rng.integers(-128, 128, shape, dtype=np.int8)
    return rng.normal(size=shape).astype(TYPES[kind])


def agree(found: np.ndarray, truth: np.ndarray, kind: str) -> None:
    if kind == "INT8":
        # a sum just between two steps may be rounded the other way in float32
        difference = np.abs(found.astype(int) - truth.astype(int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01
    else:
        limit = TOLERANCE[kind] * np.abs(truth.astype(np.float64)).max()
        np.testing.assert_allclose(found.astype(float), truth.astype(float), atol=limit, rtol=0)


@pytest.mark.parametrize("kind", ["FLOAT", "HALF", "INT8"])
def test_channel_shuffle(kind: str, tmp_path: Path) -> None:
    x = drawn(np.random.default_rng(3), (2, 12, 5, 7), kind)
    source = aot_of("channel_shuffle").kernel_source(x.itemsize, 3)
    geometry = ((6, 1, 1), (64, 4, 1), 0)
    y = np.zeros_like(x)
    found = launched(source, "channel_shuffle", tmp_path, [x], (2, 12, 35), y, geometry)
    truth = registry.module("plugin", "channel_shuffle").run(x, groups=3)
    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize("kind", ["FLOAT", "HALF", "INT8"])
def test_shuffle_depthwise(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    x = drawn(rng, (2, 12, 11, 9), kind)
    beside = "FLOAT" if kind == "INT8" else kind
    w, bias = drawn(rng, (12, 1, 5, 5), beside), drawn(rng, (12,), beside)
    w_scale = (np.abs(w).reshape(12, -1).max(1) / 127).astype(np.float32)
    attributes = {"groups": 3, "strides": [2, 2], "pads": [1, 0, 2, 1], "activation": "Relu"}
    scales = {"x_scale": 0.05, "y_scale": 0.3} if kind == "INT8" else {}
    given = scales or {"x_scale": 0.0, "y_scale": 0.0}
    source = aot_of("shuffle_depthwise").kernel_source(kind, 5, **attributes, **given)
    inputs = [x, w, bias] + ([w_scale] if scales else [])
    truth = registry.module("plugin", "shuffle_depthwise").run(*inputs, **attributes, **scales)
    geometry = ((-(-truth.size // 256), 1, 1), (256, 1, 1), 0)
    everything = [x, w, bias, w_scale]
    y = np.zeros_like(truth)
    agree(
        launched(source, "shuffle_depthwise", tmp_path, everything, x.shape, y, geometry),
        truth,
        kind,
    )


@pytest.mark.parametrize("kind", ["FLOAT", "HALF", "INT8"])
@pytest.mark.parametrize("positions", [(5, 7), (4, 16)])
def test_se_pointwise(kind: str, positions: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    x = drawn(rng, (2, 24, *positions), kind)
    beside = "FLOAT" if kind == "INT8" else kind
    scale, w = drawn(rng, (2, 24, 1, 1), beside), drawn(rng, (70, 24, 1, 1), beside)
    bias = drawn(rng, (70,), beside)
    w_scale = (np.abs(w).reshape(70, -1).max(1) / 127).astype(np.float32)
    scales = {"x_scale": 0.05, "y_scale": 0.5} if kind == "INT8" else {}
    aot = aot_of("se_pointwise")
    source = aot.kernel_source(kind, **(scales or {"x_scale": 0.0, "y_scale": 0.0}))
    inputs = [x, scale, w, bias] + ([w_scale] if scales else [])
    truth = registry.module("plugin", "se_pointwise").run(*inputs, **scales)
    *_, threads, shared = aot.FORMS[kind]
    count = positions[0] * positions[1]
    geometry = ((2 * -(-count // aot.TILE), 2, 1), (threads, 1, 1), shared)
    y = np.zeros_like(truth)
    everything = [x, scale, w, bias, w_scale]
    sizes = (2, 24, 70, count)
    agree(launched(source, "se_pointwise", tmp_path, everything, sizes, y, geometry), truth, kind)
