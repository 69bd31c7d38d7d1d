"""A cuda-python in front of a `Gpu`: cuda.bindings.runtime, or cuda.cudart as it was before 12.8.

Every function returns a tuple that begins with a cudaError_t, as there.
"""

from __future__ import annotations

import enum
import types
from typing import Any

from doubles.gpu import Gpu, OutOfMemoryError

cudaError_t = enum.IntEnum(  # noqa: N816, CUDA's name, as those below
    "cudaError_t",
    {
        "cudaSuccess": 0,
        "cudaErrorMemoryAllocation": 2,
        "cudaErrorInsufficientDriver": 35,
        "cudaErrorNoDevice": 100,
        "cudaErrorInvalidDevice": 101,
        "cudaErrorNotReady": 600,
    },
)
cudaMemcpyKind = enum.IntEnum(  # noqa: N816
    "cudaMemcpyKind",
    {
        "cudaMemcpyHostToHost": 0,
        "cudaMemcpyHostToDevice": 1,
        "cudaMemcpyDeviceToHost": 2,
        "cudaMemcpyDeviceToDevice": 3,
    },
)
cudaDeviceAttr = enum.IntEnum(  # noqa: N816
    "cudaDeviceAttr",
    {"cudaDevAttrComputeCapabilityMajor": 75, "cudaDevAttrComputeCapabilityMinor": 76},
)
OK = cudaError_t.cudaSuccess
_KINDS = ("htoh", "htod", "dtoh", "dtod")


def make_cuda_python(gpu: Gpu, *, old: bool = False) -> dict[str, types.ModuleType]:
    """Modules by the name they are imported by."""
    package = types.ModuleType("cuda")
    package.__dict__["__path__"] = []
    runtime = _Runtime(gpu, "cuda.cudart" if old else "cuda.bindings.runtime")
    if old:
        package.__dict__["cudart"] = runtime
        return {"cuda": package, "cuda.cudart": runtime}
    bindings = types.ModuleType("cuda.bindings")
    bindings.__dict__.update({"__path__": [], "runtime": runtime})
    package.__dict__["bindings"] = bindings
    return {"cuda": package, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}


class Handle:
    """A cudaStream_t or cudaEvent_t: an object that converts to int."""

    def __init__(self, number: int) -> None:
        self._number = int(number)

    def __int__(self) -> int:
        return self._number

    __index__ = __int__

    def getPtr(self) -> int:
        """Where the handle itself lies: not what TensorRT wants, and easily taken for it."""
        return id(self)


class _Properties:
    def __init__(self, gpu: Gpu) -> None:
        self.name = gpu.name.encode()
        self.major, self.minor = gpu.compute_capability
        self.totalGlobalMem = gpu.total_bytes


class _Runtime(types.ModuleType):
    def __init__(self, gpu: Gpu, name: str) -> None:
        super().__init__(name)
        self._gpu = gpu
        self._events: dict[int, Any] = {}
        self.cudaError_t, self.cudaMemcpyKind = cudaError_t, cudaMemcpyKind
        self.cudaDeviceAttr, self.cudaStream_t, self.cudaEvent_t = cudaDeviceAttr, Handle, Handle

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return (OK, self._gpu.devices) if self._gpu.devices else (cudaError_t.cudaErrorNoDevice, 0)

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        return (OK if device < self._gpu.devices else cudaError_t.cudaErrorInvalidDevice,)

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return (OK, 0)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return OK, _Properties(self._gpu)

    def cudaDeviceGetAttribute(self, attr: Any, device: int) -> tuple[Any, ...]:
        return OK, self._gpu.compute_capability[int(attr) - 75]

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return OK, self._gpu.driver

    def cudaRuntimeGetVersion(self) -> tuple[Any, ...]:
        return OK, self._gpu.runtime

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return OK, self._gpu.free_bytes, self._gpu.total_bytes

    def cudaGetErrorString(self, error: Any) -> tuple[Any, ...]:
        return OK, cudaError_t(error).name.encode()

    cudaGetErrorName = cudaGetErrorString  # noqa: N815

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        try:
            return OK, self._gpu.alloc(int(size))
        except OutOfMemoryError:
            return cudaError_t.cudaErrorMemoryAllocation, 0

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:  # noqa: N803
        self._gpu.free(int(devPtr))
        return (OK,)

    def cudaMemcpy(self, dst: int, src: int, count: int, kind: Any) -> tuple[Any, ...]:
        self._gpu.synchronize_all()
        self._gpu.copy(int(dst), int(src), int(count), _KINDS[int(kind)])
        return (OK,)

    def cudaMemcpyAsync(
        self, dst: int, src: int, count: int, kind: Any, stream: Any
    ) -> tuple[Any, ...]:
        arguments = int(dst), int(src), int(count), _KINDS[int(kind)]
        self._gpu.put(int(stream), lambda: self._gpu.copy(*arguments))
        return (OK,)

    def cudaMemset(self, devPtr: int, value: int, count: int) -> tuple[Any, ...]:  # noqa: N803
        self._gpu.at(int(devPtr), int(count))[:] = bytes([value]) * int(count)
        return (OK,)

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        return OK, Handle(self._gpu.stream())

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return self.cudaStreamCreate()

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        self._gpu.synchronize(int(stream))
        return (OK,)

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        self._gpu.end_stream(int(stream))
        return (OK,)

    def cudaDeviceSynchronize(self) -> tuple[Any, ...]:
        self._gpu.synchronize_all()
        return (OK,)

    def cudaEventCreate(self) -> tuple[Any, ...]:
        self._gpu.hold("event", 1)
        self._events[len(self._events) + 1] = None
        return OK, Handle(len(self._events))

    def cudaEventRecord(self, event: Any, stream: Any) -> tuple[Any, ...]:
        self._events[int(event)] = None
        note = self._events.__setitem__
        self._gpu.put(int(stream), lambda: note(int(event), self._gpu.clock_ms))
        return (OK,)

    def cudaEventSynchronize(self, event: Any) -> tuple[Any, ...]:
        self._gpu.synchronize_all()
        return (OK,)

    def cudaEventElapsedTime(self, start: Any, end: Any) -> tuple[Any, ...]:
        a, b = self._events[int(start)], self._events[int(end)]
        return (cudaError_t.cudaErrorNotReady, 0.0) if None in (a, b) else (OK, float(b - a))

    def cudaEventDestroy(self, event: Any) -> tuple[Any, ...]:
        self._gpu.hold("event", -1)
        return (OK,)
