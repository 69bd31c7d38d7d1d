"""An engine that runs: arrays in, arrays out, through named tensors on one stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from deploy.on_device.cuda_memory import DeviceMemory, open_device_memory
from deploy.on_device.device_error import DeviceError
from deploy.on_device.trt_buffers import EngineBuffers, EngineTensor, engine_tensors, fitting
from deploy.on_device.trt_library import LogLines, last_errors, load_plugin_libraries, made
from deploy.on_device.trt_load import read_engine

_CLOSED = "the engine is closed; load it again to run it"


class Runner:
    """A context manager; DeviceError when the engine isn't of this GPU and TensorRT.

    trt: the library. engine: as it was serialized. dla_core: the one it was built for. host_code:
    let a version compatible engine bring its own runtime, which is code.
    """

    def __init__(
        self,
        trt: Any,
        engine: bytes,
        plugin_libraries: Iterable[str] = (),
        dla_core: int | None = None,
        host_code: bool = False,
    ) -> None:
        self._log = LogLines(trt)
        self.inputs: tuple[EngineTensor, ...] = ()
        self.outputs: tuple[EngineTensor, ...] = ()
        self._buffers: list[EngineBuffers] = []
        self._own: EngineBuffers | None = None  # those of `run`
        self._bound: EngineBuffers | None = None
        self._stream: int | None = None
        self._events: list[int] = []
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._memory: DeviceMemory | None = open_device_memory()
        try:
            load_plugin_libraries(trt, self._log, plugin_libraries)
            self._runtime = made(self._log, "runtime", trt.Runtime, self._log)
            self._engine = read_engine(trt, self._log, self._runtime, engine, dla_core, host_code)
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise DeviceError(f"the engine can't be run: {self._reason()}")
            self.inputs, self.outputs = engine_tensors(trt, self._engine)
            self._stream = self._memory.stream()
        except BaseException:
            self.close()
            raise

    @property
    def memory(self) -> DeviceMemory:
        """The GPU it runs on: name, compute capability, CUDA versions."""
        if self._memory is None:
            raise DeviceError(_CLOSED)
        return self._memory

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name. An int64 feed goes into an int32 input where its values fit."""
        arrays = self._arrays(feeds)
        if self._own is None:
            self._own = self._new_buffers()
        self._bind(self._own, arrays)
        self._execute()
        return self._own.results()

    def prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        """A call that runs these feeds, already on the GPU, and waits: what is timed.

        Its buffers stay until the engine is closed.
        """
        ready = self._prepared(feeds)

        def call() -> None:
            ready()
            self._execute()

        return call

    def timed(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], float | None]:
        """As `prepare`; the call gives the milliseconds from the GPU's start on it to its end.

        None where the GPU has no events to tell them by.
        """
        try:
            first, last = self._event(), self._event()
        except DeviceError:
            return self.prepare(feeds)
        ready = self._prepared(feeds)

        def call() -> float:
            ready()
            self._execute(first, last)
            return self.memory.elapsed_ms(first, last)

        return call

    def close(self) -> None:
        """Give the GPU's memory back; once more does no harm."""
        memory, self._memory = self._memory, None
        if memory is None:
            return
        for buffers in self._buffers:
            buffers.free()
        for event in self._events:
            memory.end_event(event)
        if self._stream is not None:
            memory.end_stream(self._stream)
        self._buffers, self._events, self._bound, self._stream = [], [], None, None
        # in this order: each lives inside the next
        self._context = None
        self._engine = None
        self._runtime = None
        memory.close()

    def _arrays(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The feeds as the engine's inputs take them."""
        names = [tensor.name for tensor in self.inputs]
        if sorted(feeds) != sorted(names):
            raise DeviceError(f"fed {sorted(feeds)}; the engine's inputs are {sorted(names)}")
        return {tensor.name: fitting(tensor, feeds[tensor.name]) for tensor in self.inputs}

    def _prepared(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        """A call that makes the engine read these feeds, which it puts on the GPU once."""
        arrays = self._arrays(feeds)
        buffers = self._new_buffers()
        self._bind(buffers, arrays)

        def ready() -> None:
            if self._bound is not buffers and self._memory is not None:
                self._bind(buffers, arrays)

        return ready

    def _event(self) -> int:
        event = self.memory.event()
        self._events.append(event)
        return event

    def _new_buffers(self) -> EngineBuffers:
        made_now = EngineBuffers(self.memory, self.inputs, self.outputs)
        self._buffers.append(made_now)
        return made_now

    def _bind(self, buffers: EngineBuffers, arrays: Mapping[str, np.ndarray]) -> None:
        self._bound = None
        refused = buffers.bind(self._context, arrays)
        if refused:
            low, _, high = self._engine.get_tensor_profile_shape(refused, 0)
            raise DeviceError(
                f"input {refused!r} of shape {list(arrays[refused].shape)} isn't between "
                f"{list(low)} and {list(high)}, which the engine was built for"
            )
        self._bound = buffers

    def _execute(self, first: int | None = None, last: int | None = None) -> None:
        """Run and wait; the events take the time before and after."""
        stream, memory = self._stream, self._memory
        if stream is None or memory is None:
            raise DeviceError(_CLOSED)
        if first is not None:
            memory.record(first, stream)
        if not self._context.execute_async_v3(stream):
            raise DeviceError(f"TensorRT stopped: {self._reason()}")
        if last is not None:
            memory.record(last, stream)
        memory.synchronize(stream)

    def _reason(self) -> str:
        return last_errors(self._log, "it gives no reason")

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
