"""Builder, its settings and what they are made of: profiles, timing caches, the calibration."""

from __future__ import annotations

import json
from typing import Any

from doubles.compile_network import RefusedError, compile_network
from doubles.operators import numbers
from doubles.part import Part


class IHostMemory(Part):
    """Bytes of the library's: anything that reads a buffer can read it."""

    _built_on = (bytes,)

    def _setup(self, content: bytes) -> None:
        """The bytes came with the object."""

    def __len__(self) -> int:
        raise TypeError("object of type 'IHostMemory' has no len()")

    nbytes: Any = property(lambda self: memoryview(self).nbytes)
    dtype: Any = property(lambda self: self._value("DataType", "INT8"))


class Builder(Part):
    error_recorder = None
    max_batch_size = 1
    max_threads = 1
    gpu_allocator = None
    platform_has_fast_fp16: Any = property(lambda self: True)
    platform_has_fast_int8: Any = property(lambda self: True)
    platform_has_tf32: Any = property(lambda self: self._gpu().sm >= 80)
    num_DLA_cores: Any = property(lambda self: self._gpu().dla_cores)  # noqa: N815
    max_DLA_batch_size: Any = property(lambda self: 4096)  # noqa: N815
    logger: Any = property(lambda self: self._logger)

    def _setup(self, logger: Any) -> None:
        self._logger = logger
        # TensorRT-RTX compiles without a GPU
        if not self._gpu().devices and not self._is_rtx():
            self._log("ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def _gpu(self) -> Any:
        return self._state["gpu"]

    def _is_rtx(self) -> bool:
        return str(self._version).startswith("rtx")

    def _sm(self) -> int:
        """The GPU that is built for: the one here, or the one TensorRT-RTX was told of."""
        told = [int(c) for c in self._state.get("capabilities", []) if c is not None]
        return max(told) if told and max(told) > 1 else int(self._gpu().sm)

    def _log(self, severity: str, text: str) -> None:
        self._logger.log(self._value("ILogger.Severity", severity), text)

    def _version_numbers(self) -> tuple[int, ...]:
        return numbers(self._version)

    def create_network(self, flags: int = 0) -> Any:
        known = {int(v): k for k, v in self._members("NetworkDefinitionCreationFlag").items()}
        for bit in range(int(flags).bit_length()):
            # bit 0 was EXPLICIT_BATCH up to 10.x, where it is ignored; 11 gave it a new meaning
            if flags >> bit & 1 and bit not in known:
                self._log("ERROR", f"createNetworkV2: unknown flag {1 << bit}")
                return None
        return self._make("INetworkDefinition", self, int(flags))

    def create_builder_config(self) -> Any:
        return self._make("IBuilderConfig", self)

    def create_optimization_profile(self) -> Any:
        return self._make("IOptimizationProfile", self)

    def get_plugin_registry(self) -> Any:
        return self._state["registry"]

    def is_network_supported(self, network: Any, config: Any) -> bool:
        raise NotImplementedError("the double doesn't answer is_network_supported")

    def reset(self) -> None:
        """Nothing is kept."""

    def build_serialized_network(self, network: Any, config: Any, kernel_text: Any = None) -> Any:
        try:
            content = compile_network(self, network, config)
        except RefusedError as refusal:
            self._log("ERROR", str(refusal))
            return None
        config._measured(network)
        return self._make("IHostMemory", content)


class IOptimizationProfile(Part):
    extra_memory_target = 1.0

    def _setup(self, builder: Any) -> None:
        self._builder = builder
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        shapes = tuple(tuple(int(size) for size in shape) for shape in (min, opt, max))
        ordered = all(a <= b <= c for a, b, c in zip(*shapes))  # noqa: B905
        if len(set(map(len, shapes))) != 1 or not ordered:
            raise ValueError(f"Invalid shapes for input {input}: {shapes}")
        self._shapes[input] = shapes

    def get_shape(self, input: str) -> list[Any]:
        if input not in self._shapes:
            return []
        return [self._make("Dims", list(shape)) for shape in self._shapes[input]]

    def set_shape_input(self, input: str, min: Any, opt: Any, max: Any) -> None:
        raise NotImplementedError("the double has no shape inputs")


class ITimingCache(Part):
    """owner: which TensorRT and GPU measured; kernels: names of layers it measured."""

    def _setup(self, owner: str, kernels: Any) -> None:
        self._owner, self._kernels = owner, set(kernels)

    def serialize(self) -> Any:
        return self._make("IHostMemory", json.dumps([self._owner, sorted(self._kernels)]).encode())

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        if input_cache._owner != self._owner and not ignore_mismatch:
            return False
        self._kernels |= input_cache._kernels
        return True

    def reset(self) -> bool:
        self._kernels.clear()
        return True


class IInt8Calibrator(Part):
    """Base of the calibrators; users write get_batch, get_batch_size and the two cache calls."""

    def get_batch_size(self) -> int:
        raise NotImplementedError("Tried to call pure virtual function get_batch_size")

    def get_batch(self, names: list[str]) -> Any:
        raise NotImplementedError("Tried to call pure virtual function get_batch")

    def read_calibration_cache(self) -> Any:
        raise NotImplementedError("Tried to call pure virtual function read_calibration_cache")

    def write_calibration_cache(self, cache: Any) -> None:
        raise NotImplementedError("Tried to call pure virtual function write_calibration_cache")

    def get_algorithm(self) -> Any:
        raise NotImplementedError("Tried to call pure virtual function get_algorithm")


class IInt8EntropyCalibrator2(IInt8Calibrator):
    _algorithm = "EntropyCalibration2"

    def get_algorithm(self) -> Any:
        return self._value("CalibrationAlgoType", "ENTROPY_CALIBRATION_2")


class IInt8MinMaxCalibrator(IInt8Calibrator):
    _algorithm = "MinMaxCalibration"

    def get_algorithm(self) -> Any:
        return self._value("CalibrationAlgoType", "MINMAX_CALIBRATION")
