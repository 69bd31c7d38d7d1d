"""Memory, streams, events and facts of the first GPU, through pycuda (Jetson) or cuda-python."""

from __future__ import annotations

from typing import Any

import numpy as np

from deploy.on_device.device_error import (
    UNIMPORTABLE,
    DeviceError,
    MissingLibraryError,
    NoDeviceError,
)


class DeviceMemory:
    """The GPU's memory by address; `close` gives the context back.

    Addresses and streams are integers, as TensorRT takes them, and so are events. Copies return
    when they are done.
    """

    def alloc(self, nbytes: int) -> int:
        """The address of so many bytes."""
        raise NotImplementedError

    def free(self, address: int) -> None:
        """Give back what `alloc` gave."""
        raise NotImplementedError

    def copy_in(self, address: int, array: np.ndarray) -> None:
        """A contiguous array to the GPU."""
        raise NotImplementedError

    def copy_out(self, array: np.ndarray, address: int) -> None:
        """From the GPU into a contiguous array."""
        raise NotImplementedError

    def stream(self) -> int:
        """A new stream's handle."""
        raise NotImplementedError

    def synchronize(self, stream: int) -> None:
        """Wait for everything that was put on the stream."""
        raise NotImplementedError

    def end_stream(self, stream: int) -> None:
        """Give the stream back."""
        raise NotImplementedError

    def event(self) -> int:
        """A new event, which takes the GPU's time."""
        raise NotImplementedError

    def record(self, event: int, stream: int) -> None:
        """Take the time when the GPU has done all that was put on the stream so far."""
        raise NotImplementedError

    def elapsed_ms(self, first: int, last: int) -> float:
        """Milliseconds between two recorded events whose stream was waited for."""
        raise NotImplementedError

    def end_event(self, event: int) -> None:
        """Give the event back."""
        raise NotImplementedError

    def device_name(self) -> str:
        """As the driver calls the GPU: "Xavier"."""
        raise NotImplementedError

    def compute_capability(self) -> str:
        """Major and minor: "7.2"."""
        raise NotImplementedError

    def cuda_versions(self) -> dict[str, str]:
        """CUDA of the `driver` and of the `runtime`: "11.4"; "" where it isn't told."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing may be used after."""


def open_device_memory() -> DeviceMemory:
    """The first GPU. MissingLibraryError without pycuda and cuda-python, NoDeviceError without a
    GPU; both name what was tried."""
    reasons = []
    for imported, opened in ((_pycuda_driver, _PycudaMemory), (_cuda_runtime, _CudaPythonMemory)):
        try:
            module = imported()
        except UNIMPORTABLE as error:
            reasons.append(str(error))
            continue
        return opened(module)
    raise MissingLibraryError(
        "neither pycuda nor cuda-python can be imported ({}); pip install pycuda on a Jetson, "
        "cuda-python elsewhere".format("; ".join(reasons))
    )


class _PycudaMemory(DeviceMemory):
    """pycuda, in the context that TensorRT uses as well: the primary one."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._held: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        try:
            driver.init()
            if driver.Device.count() == 0:
                raise NoDeviceError("no NVIDIA GPU here: pycuda counts 0 devices")
            self._device = driver.Device(0)
            self._context = self._device.retain_primary_context()
        except driver.Error as error:
            raise NoDeviceError(f"no NVIDIA GPU here: pycuda says {error}") from None
        self._context.push()

    def alloc(self, nbytes: int) -> int:
        try:
            made = self._driver.mem_alloc(max(1, nbytes))
        except self._driver.Error as error:
            raise DeviceError(_no_memory(nbytes, error)) from None
        self._held[int(made)] = made
        return int(made)

    def free(self, address: int) -> None:
        self._held.pop(address).free()

    def copy_in(self, address: int, array: np.ndarray) -> None:
        if array.nbytes:
            self._driver.memcpy_htod(address, array)

    def copy_out(self, array: np.ndarray, address: int) -> None:
        if array.nbytes:
            self._driver.memcpy_dtoh(array, address)

    def stream(self) -> int:
        made = self._driver.Stream()
        self._streams[int(made.handle)] = made
        return int(made.handle)

    def synchronize(self, stream: int) -> None:
        try:
            self._streams[stream].synchronize()
        except self._driver.Error as error:
            raise DeviceError(f"the GPU stopped: {error}") from None

    def end_stream(self, stream: int) -> None:
        # pycuda destroys it with its last reference
        self._streams.pop(stream, None)

    def event(self) -> int:
        try:
            made = self._driver.Event()
        except self._driver.Error as error:
            raise DeviceError(f"no event of the GPU: {error}") from None
        self._events[id(made)] = made
        return id(made)

    def record(self, event: int, stream: int) -> None:
        self._events[event].record(self._streams[stream])

    def elapsed_ms(self, first: int, last: int) -> float:
        try:
            return float(self._events[first].time_till(self._events[last]))
        except self._driver.Error as error:
            raise DeviceError(f"the GPU's events tell no time: {error}") from None

    def end_event(self, event: int) -> None:
        # as a stream
        self._events.pop(event, None)

    def device_name(self) -> str:
        return str(self._device.name())

    def compute_capability(self) -> str:
        return "{}.{}".format(*self._device.compute_capability())

    def cuda_versions(self) -> dict[str, str]:
        compiled = ".".join(str(part) for part in self._driver.get_version()[:2])
        return {"driver": _cuda_version(self._driver.get_driver_version()), "runtime": compiled}

    def close(self) -> None:
        self._streams.clear()
        self._events.clear()
        for made in self._held.values():
            made.free()
        self._held.clear()
        if self._context is not None:
            self._context.pop()
            self._context.detach()
            self._context = None


class _CudaPythonMemory(DeviceMemory):
    """cuda-python's binding of the CUDA runtime, whose context is the primary one."""

    def __init__(self, runtime: Any) -> None:
        self._cuda = runtime
        try:
            count = self._call("cudaGetDeviceCount")
            if count == 0:
                raise NoDeviceError("no NVIDIA GPU here: CUDA counts 0 devices")
            self._call("cudaSetDevice", 0)
        # without a driver cuda-python raises this, or returns an error code, as it likes
        except (RuntimeError, DeviceError) as error:
            raise NoDeviceError(f"no NVIDIA GPU here: {error}") from None

    def _call(self, name: str, *arguments: Any) -> Any:
        """The one value that a CUDA function gives; DeviceError with its error's name."""
        status, *values = getattr(self._cuda, name)(*arguments)
        if int(status) != 0:
            raise DeviceError("{}: {}".format(name, getattr(status, "name", status)))
        return values[0] if values else None

    def alloc(self, nbytes: int) -> int:
        try:
            return int(self._call("cudaMalloc", max(1, nbytes)))
        except DeviceError as error:
            raise DeviceError(_no_memory(nbytes, error)) from None

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def copy_in(self, address: int, array: np.ndarray) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpy", address, array.ctypes.data, array.nbytes, kind)

    def copy_out(self, array: np.ndarray, address: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpy", array.ctypes.data, address, array.nbytes, kind)

    def stream(self) -> int:
        return int(self._call("cudaStreamCreate"))

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def end_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def event(self) -> int:
        return int(self._call("cudaEventCreate"))

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", event, stream)

    def elapsed_ms(self, first: int, last: int) -> float:
        return float(self._call("cudaEventElapsedTime", first, last))

    def end_event(self, event: int) -> None:
        self._call("cudaEventDestroy", event)

    def device_name(self) -> str:
        name = self._call("cudaGetDeviceProperties", 0).name
        return name.decode() if isinstance(name, bytes) else str(name)

    def compute_capability(self) -> str:
        properties = self._call("cudaGetDeviceProperties", 0)
        return f"{properties.major}.{properties.minor}"

    def cuda_versions(self) -> dict[str, str]:
        return {
            "driver": _cuda_version(self._call("cudaDriverGetVersion")),
            "runtime": _cuda_version(self._call("cudaRuntimeGetVersion")),
        }


def _pycuda_driver() -> Any:
    import pycuda.driver as driver

    return driver


def _cuda_runtime() -> Any:
    """The runtime's binding under its name of today, or of before 12.8."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        from cuda import cudart as runtime
    return runtime


def _cuda_version(number: int) -> str:
    """ "11.4" for 11040."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""


def _no_memory(nbytes: int, error: Exception) -> str:
    return f"the GPU has no {nbytes} bytes left ({error}); end what else runs there"
