"""A pycuda in front of a `Gpu`: pycuda.driver and pycuda.autoinit, as far as inference needs them.

As the real one, it refuses to work before `init` and without a current context, and frees an
allocation with its last reference.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np

from doubles.gpu import Gpu, GpuFault, OutOfMemoryError


def make_pycuda(gpu: Gpu) -> dict[str, types.ModuleType]:
    """Modules by the name they are imported by; importing autoinit makes a context, as there."""
    package = types.ModuleType("pycuda")
    driver = _Driver(gpu)
    package.__dict__.update({"driver": driver, "__path__": [], "VERSION": (2022, 1)})
    return {"pycuda": package, "pycuda.driver": driver, "pycuda.autoinit": _Autoinit(driver)}


class _Driver(types.ModuleType):
    def __init__(self, gpu: Gpu) -> None:
        super().__init__("pycuda.driver")
        self._gpu, self._ready = gpu, False
        self._stack: list[Any] = []
        self.Error = type("Error", (Exception,), {})
        self.LogicError = type("LogicError", (self.Error,), {})
        self.MemoryError = type("MemoryError", (self.Error,), {})
        self.RuntimeError = type("RuntimeError", (self.Error,), {})
        kinds = (_Device, _Context, _Allocation, _Stream, _Event)
        for name, kind in zip(("Device", "Context", "DeviceAllocation", "Stream", "Event"), kinds):  # noqa: B905
            setattr(self, name, type(name, (kind,), {"_driver": self}))

    def init(self, flags: int = 0) -> None:
        if not self._gpu.devices:
            raise self.RuntimeError("cuInit failed: no CUDA-capable device is detected")
        self._ready = True

    def get_version(self) -> tuple[int, int, int]:
        return self._gpu.runtime // 1000, self._gpu.runtime % 1000 // 10, 0

    def get_driver_version(self) -> int:
        return self._gpu.driver

    def mem_get_info(self) -> tuple[int, int]:
        self._current("cuMemGetInfo")
        return self._gpu.free_bytes, self._gpu.total_bytes

    def mem_alloc(self, nbytes: int) -> Any:
        self._current("cuMemAlloc")
        return self.DeviceAllocation(_integer(nbytes))

    def memcpy_htod(self, dest: Any, src: Any) -> None:
        self._current("cuMemcpyHtoD")
        self._gpu.synchronize_all()
        data = _bytes(src)
        self._gpu.at(_integer(dest), len(data))[:] = data

    def memcpy_dtoh(self, dest: Any, src: Any) -> None:
        self._current("cuMemcpyDtoH")
        self._gpu.synchronize_all()
        view = _writable(dest)
        view[:] = self._gpu.at(_integer(src), len(view))

    def memcpy_htod_async(self, dest: Any, src: Any, stream: Any = None) -> None:
        self._current("cuMemcpyHtoDAsync")
        data = _bytes(src)
        target = self._gpu.at(_integer(dest), len(data))
        self._gpu.put(_handle(stream), lambda: target.__setitem__(slice(None), data))

    def memcpy_dtoh_async(self, dest: Any, src: Any, stream: Any = None) -> None:
        self._current("cuMemcpyDtoHAsync")
        view, address = _writable(dest), _integer(src)
        self._gpu.at(address, len(view))
        self._gpu.put(
            _handle(stream),
            lambda: view.__setitem__(slice(None), self._gpu.at(address, len(view))),
        )

    def memset_d8(self, dest: Any, data: int, size: int) -> None:
        self._current("cuMemsetD8")
        self._gpu.at(_integer(dest), size)[:] = bytes([data]) * size

    def pagelocked_empty(self, shape: Any, dtype: Any, order: str = "C") -> np.ndarray:
        self._current("cuMemHostAlloc")
        made: np.ndarray = np.empty(shape, dtype, order)  # type: ignore[call-overload]
        return made

    def _current(self, call: str) -> None:
        if not self._ready:
            raise self.LogicError(f"{call} failed: initialization error - call init() first")
        if not self._stack:
            raise self.LogicError(f"{call} failed: invalid device context - no current context?")


class _Device:
    _driver: Any

    def __init__(self, number: int) -> None:
        if not self._driver._ready:
            raise self._driver.LogicError("cuDeviceGet failed: initialization error")
        if number >= self._driver._gpu.devices:
            raise self._driver.LogicError("cuDeviceGet failed: invalid device ordinal")

    @classmethod
    def count(cls) -> int:
        return int(cls._driver._gpu.devices)

    def name(self) -> str:
        return str(self._driver._gpu.name)

    def compute_capability(self) -> tuple[int, int]:
        found: tuple[int, int] = self._driver._gpu.compute_capability
        return found

    def total_memory(self) -> int:
        return int(self._driver._gpu.total_bytes)

    def retain_primary_context(self) -> Any:
        return self._driver.Context()

    def make_context(self, flags: int = 0) -> Any:
        made = self._driver.Context()
        made.push()
        return made


class _Context:
    _driver: Any

    def __init__(self) -> None:
        self._driver._gpu.hold("context", 1)
        self._detached = False

    def push(self) -> None:
        self._driver._stack.append(self)

    @classmethod
    def pop(cls) -> None:
        if not cls._driver._stack:
            raise cls._driver.LogicError("context::pop failed: cannot pop non-current context")
        cls._driver._stack.pop()

    @classmethod
    def synchronize(cls) -> None:
        cls._driver._current("cuCtxSynchronize")
        cls._driver._gpu.synchronize_all()

    @classmethod
    def get_current(cls) -> Any:
        return cls._driver._stack[-1] if cls._driver._stack else None

    def detach(self) -> None:
        if self._detached:
            raise self._driver.LogicError("cuCtxDetach failed: context was detached before")
        self._detached = True
        self._driver._gpu.hold("context", -1)


class _Allocation:
    _driver: Any

    def __init__(self, nbytes: int) -> None:
        self._address = 0
        try:
            self._address = self._driver._gpu.alloc(nbytes)
        except OutOfMemoryError:
            raise self._driver.MemoryError("cuMemAlloc failed: out of memory") from None

    def __int__(self) -> int:
        return self._address

    __index__ = __int__

    def free(self) -> None:
        address, self._address = self._address, 0
        if not address:
            raise self._driver.LogicError("mem_free failed: allocation was freed before")
        self._driver._gpu.free(address)

    def __del__(self) -> None:
        if self._address:
            self.free()


class _Stream:
    _driver: Any

    def __init__(self, flags: int = 0) -> None:
        self._handle = 0
        self._driver._current("cuStreamCreate")
        self._handle = self._driver._gpu.stream()

    @property
    def handle(self) -> int:
        return self._handle

    def synchronize(self) -> None:
        self._driver._gpu.synchronize(self._handle)

    def __del__(self) -> None:
        if self._handle:
            self._driver._gpu.end_stream(self._handle)


class _Event:
    _driver: Any

    def __init__(self, flags: int = 0) -> None:
        self._at: Any = None

    def record(self, stream: Any = None) -> Any:
        gpu = self._driver._gpu
        self._at = None
        gpu.put(_handle(stream), lambda: setattr(self, "_at", gpu.clock_ms))
        return self

    def synchronize(self) -> Any:
        self._driver._gpu.synchronize_all()
        return self

    def time_till(self, later: Any) -> float:
        if self._at is None or later._at is None:
            raise self._driver.LogicError("cuEventElapsedTime failed: device not ready")
        return float(later._at - self._at)

    def time_since(self, earlier: Any) -> float:
        return float(earlier.time_till(self))


class _Autoinit(types.ModuleType):
    """`context` and `device` come into being when they, or the import, are first looked at."""

    def __init__(self, driver: _Driver) -> None:
        super().__init__("pycuda.autoinit")
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        if name not in ("context", "device", "__spec__") or name == "__spec__":
            raise AttributeError(name)
        self._driver.init()
        self.device = self._driver.Device(0)
        self.context = self.device.make_context()
        return self.__dict__[name]


def _integer(value: Any) -> int:
    return int(value)


def _handle(stream: Any) -> int:
    return 0 if stream is None else int(stream.handle)


def _bytes(source: Any) -> bytes:
    if isinstance(source, np.ndarray) and not source.flags.c_contiguous:
        raise GpuFault("pycuda copies the buffer as it lies; this array isn't contiguous")
    return bytes(memoryview(source).cast("B")) if memoryview(source).nbytes else b""


def _writable(target: Any) -> memoryview:
    view = memoryview(target)
    if view.readonly or not view.c_contiguous:
        raise GpuFault("a copy from the GPU needs a contiguous array that can be written to")
    return view.cast("B")
