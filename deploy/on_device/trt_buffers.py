"""An engine's inputs and outputs, and the memory they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.on_device.cuda_memory import DeviceMemory
from deploy.on_device.device_error import DeviceError

_ARRAY_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class EngineTensor:
    """An engine's input or output; a dimension that the run decides is None.

    on_host: TensorRT reads or writes it in the CPU's memory, as it does with sizes.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]
    on_host: bool = False


def engine_tensors(
    trt: Any, engine: Any
) -> tuple[tuple[EngineTensor, ...], tuple[EngineTensor, ...]]:
    """Inputs and outputs, in the engine's order."""
    inputs: list[EngineTensor] = []
    outputs: list[EngineTensor] = []
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        kind = engine.get_tensor_dtype(name).name
        if kind not in _ARRAY_TYPES:
            raise DeviceError(
                f"tensor {name!r} is {kind}, which numpy has no type for; give the model float32 "
                "inputs and outputs"
            )
        shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
        on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
        side = inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs
        side.append(EngineTensor(name, np.dtype(_ARRAY_TYPES[kind]), shape, on_host))
    return tuple(inputs), tuple(outputs)


def fitting(tensor: EngineTensor, fed: np.ndarray) -> np.ndarray:
    """The array as the input takes it: contiguous, and int32 where the values of an int64 fit,
    since TensorRT 8 has no int64. DeviceError for another type or shape."""
    array = np.asarray(fed)
    if array.dtype == np.int64 and tensor.dtype == np.int32:
        bounds = np.iinfo(np.int32)
        if array.size and not (bounds.min <= array.min() and array.max() <= bounds.max):
            raise DeviceError(
                f"input {tensor.name!r} holds {array.min()} to {array.max()}; this TensorRT has "
                "int32 alone"
            )
        array = array.astype(np.int32)
    sizes = tensor.shape if len(tensor.shape) == array.ndim else (-1,)
    if array.dtype != tensor.dtype or any(
        wanted not in (None, array.shape[axis]) for axis, wanted in enumerate(sizes)
    ):
        raise DeviceError(
            f"input {tensor.name!r} was fed {array.dtype}{list(array.shape)}; the engine needs "
            f"{tensor.dtype}{list(tensor.shape)}"
        )
    # ascontiguousarray would make a scalar one-dimensional
    return array if array.flags.c_contiguous else array.copy(order="C")


class EngineBuffers:
    """Memory for one set of feeds and their results; it grows with them."""

    def __init__(
        self,
        memory: DeviceMemory,
        inputs: tuple[EngineTensor, ...],
        outputs: tuple[EngineTensor, ...],
    ) -> None:
        self._memory = memory
        self._inputs = inputs
        self._outputs = outputs
        self._held: dict[str, tuple[int, int]] = {}  # address and size
        self._host: dict[str, np.ndarray] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def bind(self, context: Any, arrays: Mapping[str, np.ndarray]) -> str:
        """Copy the feeds to the GPU and tell the context where everything lies.

        The name of an input whose shape the engine wasn't built for, else the empty string.
        """
        for tensor in self._inputs:
            array = arrays[tensor.name]
            if not context.set_input_shape(tensor.name, tuple(array.shape)):
                return tensor.name
            address = self._room(tensor, array)
            if not tensor.on_host:
                self._memory.copy_in(address, array)
            context.set_tensor_address(tensor.name, address)
        for tensor in self._outputs:
            shape = tuple(int(size) for size in context.get_tensor_shape(tensor.name))
            if any(size < 0 for size in shape):
                raise DeviceError(
                    f"output {tensor.name!r} has a size that its values decide ({list(shape)}); "
                    "cut the model before that operator"
                )
            self._shapes[tensor.name] = shape
            room = self._room(tensor, np.empty(shape, tensor.dtype))
            context.set_tensor_address(tensor.name, room)
        return ""

    def results(self) -> dict[str, np.ndarray]:
        """The outputs, each in an array of its own."""
        found = {}
        for tensor in self._outputs:
            if tensor.on_host:
                found[tensor.name] = self._host[tensor.name].copy()
                continue
            found[tensor.name] = np.empty(self._shapes[tensor.name], tensor.dtype)
            self._memory.copy_out(found[tensor.name], self._held[tensor.name][0])
        return found

    def free(self) -> None:
        """Give all memory back."""
        for address, _ in self._held.values():
            self._memory.free(address)
        self._held.clear()

    def _room(self, tensor: EngineTensor, array: np.ndarray) -> int:
        """Where a tensor of this array's size lies."""
        if tensor.on_host:
            self._host[tensor.name] = array
            return int(array.ctypes.data)
        address, size = self._held.get(tensor.name, (0, -1))
        if array.nbytes > size:
            if size >= 0:
                self._memory.free(self._held.pop(tensor.name)[0])
            address = self._memory.alloc(array.nbytes)
            self._held[tensor.name] = (address, array.nbytes)
        return address
