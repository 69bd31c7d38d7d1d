"""Memory that is used wrong is a fault, through either library."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from doubles import Gpu, GpuFault, installed

A = np.arange(6, dtype=np.float32)


def test_reading_past_the_end_and_after_free() -> None:
    gpu = Gpu()
    address = gpu.alloc(16)
    gpu.write(address + 8, A[:2])
    with pytest.raises(GpuFault, match="8 past the end of an allocation of 16"):
        gpu.write(address, A)
    gpu.free(address)
    with pytest.raises(GpuFault, match="used after it was freed"):
        gpu.read(address, (1,), np.float32)
    with pytest.raises(GpuFault, match="freed before"):
        gpu.free(address)
    with pytest.raises(GpuFault, match="never given out"):
        gpu.read(4096, (1,), np.float32)


def test_what_is_still_held_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="still held on the GPU: 16 bytes"), installed() as it:
        it.gpu.alloc(16)
    with installed(leaks=False) as it:
        it.gpu.alloc(16)


def test_pycuda_copies_there_and_back() -> None:
    with installed() as here:
        driver: Any = importlib.import_module("pycuda.driver")
        with pytest.raises(driver.LogicError, match="initialization"):
            driver.mem_alloc(4)
        driver.init()
        with pytest.raises(driver.LogicError, match="context"):
            driver.mem_alloc(4)
        context = driver.Device(0).retain_primary_context()
        context.push()
        memory, back = driver.mem_alloc(A.nbytes), np.empty_like(A)
        driver.memcpy_htod(memory, A)
        stream = driver.Stream()
        driver.memcpy_dtoh_async(back[:3], int(memory), stream)
        back[:] = -1
        stream.synchronize()
        assert back.tolist() == [0, 1, 2, -1, -1, -1]
        driver.memcpy_dtoh(back, memory)
        assert np.array_equal(back, A)
        with pytest.raises(GpuFault, match="past the end"):
            driver.memcpy_htod(memory, np.zeros(7, np.float32))
        memory.free()
        with pytest.raises(driver.LogicError, match="freed before"):
            memory.free()
        assert driver.Device(0).compute_capability() == (7, 2)
        context.pop()
        context.detach()
        del stream
        assert not here.gpu.leaks()


def test_autoinit_makes_a_context() -> None:
    with installed(leaks=False):
        autoinit: Any = importlib.import_module("pycuda.autoinit")
        driver: Any = importlib.import_module("pycuda.driver")
        assert autoinit.device.name() == "Xavier"
        driver.mem_alloc(4).free()


@pytest.mark.parametrize(
    ("memory", "name"), [("cuda-python", "cuda.bindings.runtime"), ("cudart", "cuda.cudart")]
)
def test_cuda_python_copies_there_and_back(memory: str, name: str) -> None:
    with installed("10.3.0", 87, memory):
        cuda: Any = importlib.import_module(name)
        error, address = cuda.cudaMalloc(A.nbytes)
        assert int(error) == 0
        back, kinds = np.empty_like(A), cuda.cudaMemcpyKind
        there = (address, A.ctypes.data, A.nbytes, kinds.cudaMemcpyHostToDevice)
        assert cuda.cudaMemcpy(*there) == (cuda.cudaError_t.cudaSuccess,)
        here = (back.ctypes.data, address, A.nbytes, kinds.cudaMemcpyDeviceToHost)
        cuda.cudaMemcpy(*here)
        assert np.array_equal(back, A)
        with pytest.raises(GpuFault, match="as the host's"):
            cuda.cudaMemcpy(address, address, 4, kinds.cudaMemcpyDeviceToHost)
        with pytest.raises(GpuFault, match="never given out"):
            cuda.cudaMemcpy(address + (1 << 20), A.ctypes.data, 4, kinds.cudaMemcpyHostToDevice)
        cuda.cudaFree(address)
        _, stream = cuda.cudaStreamCreate()
        cuda.cudaStreamDestroy(stream)
        with pytest.raises(GpuFault, match="doesn't exist"):
            cuda.cudaStreamSynchronize(stream)


def test_events_tell_the_time_of_the_gpu() -> None:
    with installed("10.3.0", 87, "cuda-python") as here:
        cuda: Any = importlib.import_module("cuda.bindings.runtime")
        (_, first), (_, last) = cuda.cudaEventCreate(), cuda.cudaEventCreate()
        cuda.cudaEventRecord(first, 0)
        here.gpu.put(0, lambda: setattr(here.gpu, "clock_ms", 1.5))
        cuda.cudaEventRecord(last, 0)
        assert cuda.cudaEventElapsedTime(first, last)[0] == cuda.cudaError_t.cudaErrorNotReady
        cuda.cudaEventSynchronize(last)
        assert cuda.cudaEventElapsedTime(first, last) == (cuda.cudaError_t.cudaSuccess, 1.5)
        cuda.cudaEventDestroy(first)
        cuda.cudaEventDestroy(last)


@pytest.mark.parametrize("memory", ["pycuda", "cuda-python"])
def test_only_what_was_asked_for_is_installed(memory: str) -> None:
    with installed("8.5.2", memory=memory):
        other = "cuda" if memory == "pycuda" else "pycuda"
        with pytest.raises(ImportError):
            importlib.import_module(other)
        with pytest.raises(ImportError):
            importlib.import_module("tensorrt_rtx")
