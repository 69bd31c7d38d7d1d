"""A GPU of NumPy: memory by address, streams whose work waits, and the faults of using them wrong.

What real memory would forgive or crash on is a `GpuFault` here: reading what was freed, copying
past the end, an address that was never given, freeing twice. Work put on a stream is done when
somebody waits for it, so results that were read too early are still the old ones.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np


class GpuFault(AssertionError):  # noqa: N818, a fault is no Error to catch
    """Memory or a stream was used in a way that a real GPU would crash on, or wouldn't notice."""


class OutOfMemoryError(Exception):
    """More was asked for than the GPU has left."""


class Gpu:
    """sm: compute capability times ten, 72. versions as CUDA writes them: 11040 for 11.4."""

    def __init__(
        self,
        sm: int = 72,
        name: str = "Xavier",
        driver: int = 11040,
        runtime: int = 11040,
        dla_cores: int = 0,
        devices: int = 1,
        total_bytes: int = 1 << 34,
    ) -> None:
        self.sm, self.name, self.driver, self.runtime = sm, name, driver, runtime
        self.dla_cores, self.devices, self.total_bytes = dla_cores, devices, total_bytes
        self.clock_ms = 0.0  # advances with every kernel, for events
        # what a kernel takes, by its type: {"int8": 0.5}; a quarter where nobody says
        self.kernel_ms: dict[str, float] = {}
        self._next = 0x7F00_0000_0000
        self._memory: dict[int, bytearray] = {}
        self._freed: dict[int, int] = {}
        self._streams: dict[int, list[Callable[[], None]]] = {0: []}
        self._others: dict[str, int] = {}  # what else is held: contexts, events

    @property
    def compute_capability(self) -> tuple[int, int]:
        return divmod(self.sm, 10)

    @property
    def free_bytes(self) -> int:
        return self.total_bytes - sum(map(len, self._memory.values()))

    def alloc(self, nbytes: int) -> int:
        """The address of zeroed memory, 512 bytes apart from any other."""
        if nbytes <= 0:
            raise GpuFault(f"{nbytes} bytes of GPU memory were asked for")
        if nbytes > self.free_bytes:
            raise OutOfMemoryError(f"{nbytes} bytes asked for, {self.free_bytes} free")
        address = self._next
        self._next += (nbytes + 1023) // 512 * 512
        # values nobody wrote are not zeros by chance
        self._memory[address] = bytearray(b"\xcb" * nbytes)
        return address

    def free(self, address: int) -> None:
        if address not in self._memory:
            was = "freed before" if address in self._freed else "never given out"
            raise GpuFault(f"address {address:#x} was {was} and can't be freed")
        self._finish()
        self._freed[address] = len(self._memory.pop(address))

    def at(self, address: int, nbytes: int) -> memoryview:
        """The bytes from an address on, to read or write."""
        for start, data in self._memory.items():
            if start <= address < start + len(data):
                if address + nbytes > start + len(data):
                    raise GpuFault(
                        f"{nbytes} bytes at {address:#x} go {address + nbytes - start - len(data)}"
                        f" past the end of an allocation of {len(data)}"
                    )
                return memoryview(data)[address - start : address - start + nbytes]
        for start, size in self._freed.items():
            if start <= address < start + size:
                raise GpuFault(f"address {address:#x} is used after it was freed")
        raise GpuFault(f"address {address:#x} was never given out by this GPU")

    def is_device(self, address: int) -> bool:
        """Whether an address lies where this GPU's memory is, in use or freed."""
        return 0x7F00_0000_0000 <= address < self._next

    def read(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A copy of an array that lies in the GPU's memory."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return np.frombuffer(bytes(self.at(address, nbytes)), dtype).reshape(shape).copy()

    def write(self, address: int, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array).tobytes()
        self.at(address, len(data))[:] = data

    def copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        """kind: htod, dtoh, dtod; addresses of the host are real ones."""
        if kind[0] == "d":
            data = bytes(self.at(source, nbytes))
        else:
            self._host(source)
            data = ctypes.string_at(source, nbytes)
        if kind.endswith("d"):
            self.at(target, nbytes)[:] = data
        else:
            self._host(target)
            ctypes.memmove(target, data, nbytes)

    def _host(self, address: int) -> None:
        if self.is_device(address):
            raise GpuFault(f"{address:#x} is the GPU's memory, and was given as the host's")

    def stream(self) -> int:
        handle = 0x5000 + 16 * len(self._streams) + self._next % 16
        while handle in self._streams:
            handle += 16
        self._streams[handle] = []
        return handle

    def end_stream(self, handle: int) -> None:
        self._check_stream(handle)
        self.synchronize(handle)
        del self._streams[handle]

    def put(self, handle: int, work: Callable[[], None]) -> None:
        """Do this when the stream is waited for."""
        self._check_stream(handle)
        self._streams[handle].append(work)

    def synchronize(self, handle: int) -> None:
        self._check_stream(handle)
        waiting, self._streams[handle] = self._streams[handle], []
        for work in waiting:
            work()

    def _check_stream(self, handle: int) -> None:
        if handle not in self._streams:
            raise GpuFault(f"stream {handle:#x} doesn't exist, or not any more")

    def _finish(self) -> None:
        """What the default stream does before anything synchronous: wait for all others."""
        for handle in list(self._streams):
            self.synchronize(handle)

    synchronize_all = _finish

    def passed(self, kernels: list[str]) -> None:
        """These kernels ran, whose names end in their types."""
        for name in kernels:
            self.clock_ms += self.kernel_ms.get(name.rpartition("_")[2], 0.25)

    def hold(self, what: str, change: int) -> None:
        """Count what else has to be given back."""
        self._others[what] = self._others.get(what, 0) + change
        if self._others[what] < 0:
            raise GpuFault(f"a {what} was given back more often than it was taken")

    def leaks(self) -> list[str]:
        """What was taken and not given back, in words."""
        found = [f"{len(d)} bytes at {a:#x}" for a, d in self._memory.items()]
        found += [f"stream {handle:#x}" for handle in self._streams if handle]
        return found + [f"{n} {what}" for what, n in self._others.items() if n]
