"""The builder's settings: types, memory, sizes, DLA and the timing cache of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.on_device.device_error import DeviceError
from deploy.on_device.trt_library import chooses_types, version_text
from deploy.on_device.trt_network import is_free, network_inputs, network_layers
from deploy.on_device.trt_plan import BuildPlan

# the flag that lets TensorRT use a type where it chooses types itself
_TYPE_FLAGS = {"int8": "INT8", "fp16": "FP16", "bf16": "BF16", "fp8": "FP8"}
# a layer's precision in a list, as the library calls the type
LAYER_TYPES = {"int8": "INT8", "fp16": "HALF", "fp32": "FLOAT", "bf16": "BF16"}


def check_plan(trt: Any, plan: BuildPlan) -> None:
    """DeviceError where this version can't do what the plan asks for."""
    version = version_text(trt)
    if plan.typing == "weak" and not chooses_types(trt):
        raise DeviceError(
            f"typing = weak, and {version} lets the graph alone decide types; it needs a model "
            "with its types written in and typing = strong"
        )
    if plan.typing == "strong" and not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        raise DeviceError(
            f"typing = strong, which {version} doesn't know (10.0 brought it); use weak"
        )
    if plan.quantization == "implicit" and not hasattr(trt, "IInt8EntropyCalibrator2"):
        raise DeviceError(
            f"a calibration cache, which {version} doesn't take (10.16 was the last); it needs "
            "explicit Q/DQ in the model"
        )
    if plan.quantization == "implicit" and plan.typing == "strong":
        raise DeviceError("a calibration cache with typing = strong; it works with weak alone")
    if plan.quantization == "implicit" and not (plan.cache or plan.scales):
        raise DeviceError("implicit INT8 without a scale: neither a cache nor ranges were given")
    for kind in (plan.precision, plan.rest) if plan.typing == "weak" else ():
        if kind != "fp32" and not hasattr(trt.BuilderFlag, _TYPE_FLAGS[kind]):
            raise DeviceError(f"{kind}, which {version} doesn't have")
    known = [kind for kind, name in LAYER_TYPES.items() if hasattr(trt.DataType, name)]
    for layer, kind in plan.layer_precisions.items():
        if kind not in known:
            raise DeviceError(
                f"layer {layer!r} of the list in {kind!r}, and {version} has {', '.join(known)}; "
                "build the bundle again on the host"
            )
    if plan.use_dla and plan.precision not in ("int8", "fp16"):
        raise DeviceError(f"a DLA with {plan.precision}; it computes in int8 and fp16 alone")


def builder_config(trt: Any, builder: Any, network: Any, plan: BuildPlan) -> tuple[Any, list[str]]:
    """The settings for `build_serialized_network`, and what of the plan was left out."""
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    notes: list[str] = []
    if plan.typing == "weak":
        for kind in {plan.precision, plan.rest} - {"fp32"}:
            config.set_flag(getattr(trt.BuilderFlag, _TYPE_FLAGS[kind]))
    if not plan.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if plan.workspace_bytes:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, plan.workspace_bytes)
    if plan.optimization_level is not None:
        if hasattr(config, "builder_optimization_level"):
            config.builder_optimization_level = plan.optimization_level
        else:
            notes.append(f"optimization level left out: {version_text(trt)} has none")
    _set_compatibility(trt, config, plan)
    if plan.use_dla:
        _use_dla(trt, builder, config, plan)
    profile = _profile(builder, network, plan)
    if profile is not None:
        config.add_optimization_profile(profile)
        if plan.quantization == "implicit" and not plan.use_ranges:
            config.set_calibration_profile(profile)
    return config, notes


def _set_compatibility(trt: Any, config: Any, plan: BuildPlan) -> None:
    if plan.version_compatible:
        if not hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"):
            raise DeviceError(
                f"version_compatible, which {version_text(trt)} doesn't have (8.6 brought it)"
            )
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if plan.hardware_compatible:
        if not hasattr(trt, "HardwareCompatibilityLevel"):
            raise DeviceError(
                f"hardware_compatible, which {version_text(trt)} doesn't have (8.6 brought it)"
            )
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _use_dla(trt: Any, builder: Any, config: Any, plan: BuildPlan) -> None:
    """Layers go to the DLA where it takes them, and to the GPU otherwise."""
    if plan.dla_core >= builder.num_DLA_cores:
        there = builder.num_DLA_cores
        instead = "give a smaller number" if there else "build for the target of this device's GPU"
        raise DeviceError(
            f"DLA core {plan.dla_core}, and {version_text(trt)} sees {there} here; {instead}"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = plan.dla_core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def dla_layers(config: Any, network: Any) -> dict[str, bool]:
    """Per layer of the network whether the DLA takes it."""
    return {layer.name: bool(config.can_run_on_DLA(layer)) for layer in network_layers(network)}


def _profile(builder: Any, network: Any, plan: BuildPlan) -> Any:
    """The sizes of dynamic inputs; none where every size is fixed."""
    free = [tensor for tensor in network_inputs(network) if is_free(tensor)]
    if not free:
        return None
    profile = builder.create_optimization_profile()
    for tensor in free:
        if tensor.name not in plan.profiles:
            raise DeviceError(
                f"input {tensor.name!r} has free dimensions {list(tensor.shape)} and no profile; "
                "give its smallest, usual and largest shape"
            )
        shapes = [tuple(shape) for shape in plan.profiles[tensor.name]]
        _check_profile(tensor, shapes)
        profile.set_shape(tensor.name, *shapes)
    return profile


def _check_profile(tensor: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    fixed = tuple(tensor.shape)
    fits = len(shapes) == 3 and all(len(shape) == len(fixed) for shape in shapes)
    sizes = [[shape[axis] for shape in shapes] for axis in range(len(fixed))] if fits else []
    growing = all(
        row == sorted(row) and (fixed[axis] < 0 or set(row) == {fixed[axis]})
        for axis, row in enumerate(sizes)
    )
    if not fits or not growing:
        raise DeviceError(
            f"profile {[list(s) for s in shapes]} of input {tensor.name!r}, whose shape is "
            f"{list(fixed)}; give smallest <= usual <= largest, equal where the input is fixed"
        )


def load_timing_cache(config: Any, plan: BuildPlan) -> list[str]:
    """Take over measured kernels from the plan's file; says when it was of another machine."""
    if not plan.timing_cache:
        return []
    stored = b""
    if Path(plan.timing_cache).is_file():
        stored = Path(plan.timing_cache).read_bytes()
    if config.set_timing_cache(config.create_timing_cache(stored), False):
        return []
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return [f"timing cache {plan.timing_cache} is of another GPU or TensorRT; started a new one"]


def save_timing_cache(config: Any, plan: BuildPlan) -> None:
    """Write what was measured, complete or not at all."""
    if not plan.timing_cache:
        return
    path = Path(plan.timing_cache)
    aside = path.with_name(path.name + ".partial")
    aside.write_bytes(bytes(config.get_timing_cache().serialize()))
    aside.replace(path)
