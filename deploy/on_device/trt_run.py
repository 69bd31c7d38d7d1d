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
        arrays = self._arrays(feeds)
        buffers = self._new_buffers()
        self._bind(buffers, arrays)

        def call() -> None:
            if self._bound is not buffers and self._memory is not None:
                self._bind(buffers, arrays)
            self._execute()

        return call

    def close(self) -> None:
        """Give the GPU's memory back; once more does no harm."""
        memory, self._memory = self._memory, None
        if memory is None:
            return
        for buffers in self._buffers:
            buffers.free()
        if self._stream is not None:
            memory.end_stream(self._stream)
        self._buffers, self._bound, self._stream = [], None, None
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

    def _execute(self) -> None:
        stream = self._stream
        if stream is None or self._memory is None:
            raise DeviceError(_CLOSED)
        if not self._context.execute_async_v3(stream):
            raise DeviceError(f"TensorRT stopped: {self._reason()}")
        self._memory.synchronize(stream)

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
