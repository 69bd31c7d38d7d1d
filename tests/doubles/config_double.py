"""IBuilderConfig: flags, memory, profiles, devices and the timing cache."""

from __future__ import annotations

import json
from typing import Any

from doubles.part import Part

_WHOLE = (1 << 63) - 1  # what a pool may take when nobody said


class IBuilderConfig(Part):
    avg_timing_iterations = 1
    min_timing_iterations = 1
    max_workspace_size = 0
    int8_calibrator = None
    algorithm_selector = None
    progress_monitor = None
    DLA_core = -1
    builder_optimization_level = 3
    max_aux_streams = -1
    profile_stream = 0
    plugins_to_serialize: Any = property(lambda self: [], lambda self, paths: None)
    num_optimization_profiles: Any = property(lambda self: len(self._profiles))

    def _setup(self, builder: Any) -> None:
        self._builder = builder
        self._flags = {name: name == "TF32" for name in self._members("BuilderFlag")}
        self._enums = {
            "profiling_verbosity": self._value("ProfilingVerbosity", "LAYER_NAMES_ONLY"),
            "default_device_type": self._value("DeviceType", "GPU"),
            "engine_capability": self._value("EngineCapability", "STANDARD"),
            "hardware_compatibility_level": self._members("HardwareCompatibilityLevel").get("NONE"),
            "tiling_optimization_level": self._members("TilingOptimizationLevel").get("NONE"),
        }
        self._pools: dict[str, int] = {}
        self._profiles: list[Any] = []
        self._calibration_profile: Any = None
        self._device_of: dict[str, Any] = {}
        self._quantization: dict[str, bool] = {"CALIBRATE_BEFORE_FUSION": True}
        self._previews: dict[str, bool] = {}
        self._cache: Any = None

    def _enum(name: str) -> Any:  # type: ignore[misc]  # noqa: N805, makes the properties below
        def change(self: Any, value: Any) -> None:
            if type(value) is not type(self._enums[name]):
                raise TypeError(f"(): incompatible function arguments: {name} = {value!r}")
            self._enums[name] = value

        return property(lambda self: self._enums[name], change)

    profiling_verbosity = _enum("profiling_verbosity")
    default_device_type = _enum("default_device_type")
    engine_capability = _enum("engine_capability")
    hardware_compatibility_level = _enum("hardware_compatibility_level")
    tiling_optimization_level = _enum("tiling_optimization_level")

    @property
    def flags(self) -> int:
        members = self._members("BuilderFlag")
        return sum(1 << int(members[name]) for name, on in self._flags.items() if on)

    @flags.setter
    def flags(self, mask: int) -> None:
        for name, member in self._members("BuilderFlag").items():
            self._flags[name] = bool(int(mask) >> int(member) & 1)

    def set_flag(self, flag: Any) -> None:
        self._flags[flag.__dict__["name"]] = True

    def clear_flag(self, flag: Any) -> None:
        self._flags[flag.__dict__["name"]] = False

    def get_flag(self, flag: Any) -> bool:
        return self._flags[flag.__dict__["name"]]

    def set_quantization_flag(self, flag: Any) -> None:
        self._quantization[flag.__dict__["name"]] = True

    def clear_quantization_flag(self, flag: Any) -> None:
        self._quantization[flag.__dict__["name"]] = False

    def get_quantization_flag(self, flag: Any) -> bool:
        return self._quantization[flag.__dict__["name"]]

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        self._previews[feature.__dict__["name"]] = bool(enable)

    def get_preview_feature(self, feature: Any) -> bool:
        return self._previews.get(feature.__dict__["name"], False)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        name = pool.__dict__["name"]
        sram = name == "DLA_MANAGED_SRAM"
        if pool_size < 0 or (sram and pool_size & (pool_size - 1)):
            self._builder._log("ERROR", f"setMemoryPoolLimit: {name} can't be {pool_size} bytes")
            return
        self._pools[name] = int(pool_size)

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(pool.__dict__["name"], _WHOLE)

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_calibration_profile(self, profile: Any) -> bool:
        self._calibration_profile = profile
        return True

    def get_calibration_profile(self) -> Any:
        return self._calibration_profile

    def set_device_type(self, layer: Any, device_type: Any) -> None:
        self._device_of[layer._name] = device_type

    def get_device_type(self, layer: Any) -> Any:
        return self._device_of.get(layer._name, self._enums["default_device_type"])

    def is_device_type_set(self, layer: Any) -> bool:
        return layer._name in self._device_of

    def reset_device_type(self, layer: Any) -> None:
        self._device_of.pop(layer._name, None)

    def can_run_on_DLA(self, layer: Any) -> bool:
        return self._dla_takes(layer)

    def _dla_takes(self, layer: Any) -> bool:
        kinds = {"CONVOLUTION", "DECONVOLUTION", "ACTIVATION", "POOLING", "ELEMENTWISE", "SCALE"}
        kinds |= {"CONCATENATION", "SLICE", "RESIZE", "UNARY", "PARAMETRIC_RELU"}
        dynamic = any(-1 in v.shape[1:] for v in layer._step.outputs)
        return layer._step.kind in kinds and not dynamic and self._builder._gpu().dla_cores > 0

    def reset(self) -> None:
        self._setup(self._builder)

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        content = bytes(serialized_timing_cache or b"")
        if not content:
            return self._make("ITimingCache", self._owner(), [])
        try:
            owner, kernels = json.loads(content)
        except ValueError:
            self._builder._log("ERROR", "createTimingCache: the bytes are no timing cache")
            return None
        return self._make("ITimingCache", owner, kernels)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache is None or (cache._owner != self._owner() and not ignore_mismatch):
            self._builder._log("WARNING", "setTimingCache: the cache is of another device")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any | None:
        return self._cache

    def _owner(self) -> str:
        return f"{self._version} sm{self._builder._gpu().sm}"

    def _measured(self, network: Any) -> None:
        if self._cache is None:
            self._cache = self._make("ITimingCache", self._owner(), [])
        if not self._flags["DISABLE_TIMING_CACHE"]:
            self._cache._kernels |= {step.name for step in network._graph.steps}

    # TensorRT-RTX: for which GPUs it compiles
    @property
    def num_compute_capabilities(self) -> int:
        return len(self._capabilities())

    @num_compute_capabilities.setter
    def num_compute_capabilities(self, count: int) -> None:
        self._state["capabilities"] = [None] * int(count)

    def _capabilities(self) -> list[Any]:
        found: list[Any] = self._state.setdefault("capabilities", [])
        return found

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        self._capabilities()[index] = compute_capability
        return True

    def get_compute_capability(self, index: int) -> Any:
        return self._capabilities()[index]
