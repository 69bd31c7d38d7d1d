"""A plan as an engine, by TensorRT 8.5 to 11: one path, which looks at what the library has."""

from __future__ import annotations

import time
from typing import Any

from deploy.on_device.device_error import DeviceError
from deploy.on_device.int8_layers import all_float
from deploy.on_device.trt_config import (
    builder_config,
    check_plan,
    dla_layers,
    load_timing_cache,
    save_timing_cache,
)
from deploy.on_device.trt_implicit import ImplicitInt8, set_implicit
from deploy.on_device.trt_layers import inspected_layers
from deploy.on_device.trt_library import (
    LogLines,
    last_errors,
    load_plugin_libraries,
    logged,
    made,
    version_text,
)
from deploy.on_device.trt_load import read_engine
from deploy.on_device.trt_network import read_network
from deploy.on_device.trt_plan import BuildPlan, Built
from deploy.on_device.trtexec_log import unscaled_tensors

_REFUSED_CACHE = (
    "the calibration cache was ignored: TensorRT asked for samples, so it doesn't accept the "
    "header {!r}; it takes one that names its very release alone"
)


def build_plan(trt: Any, plan: BuildPlan) -> Built:
    """The engine with its layers; DeviceError when TensorRT refuses.

    `problems` names what makes it another engine than planned: a cache that was ignored, a tensor
    of an INT8 layer without a scale.
    """
    started = time.time()
    check_plan(trt, plan)
    log = LogLines(trt)
    load_plugin_libraries(trt, log, plan.plugin_libraries)
    builder = made(log, "builder", trt.Builder, log)
    # the parser owns the weights until the engine is built
    network, parser = read_network(trt, log, builder, plan)
    config, messages = builder_config(trt, builder, network, plan)
    messages += load_timing_cache(config, plan)
    implicit = ImplicitInt8()
    if plan.quantization == "implicit":
        implicit = set_implicit(trt, network, config, plan)
    on_dla = dla_layers(config, network) if plan.use_dla else {}
    engine = builder.build_serialized_network(network, config)
    problems = list(implicit.problems)
    if implicit.calibrator is not None and implicit.calibrator.asked:
        problems.append(_REFUSED_CACHE.format(plan.cache.split("\n", 1)[0]))
    if engine is None:
        raise DeviceError(_refusal(trt, log, problems))
    save_timing_cache(config, plan)
    del parser
    problems += _overlooked(logged(log, "WARNING"), implicit)
    if on_dla and not any(on_dla.values()):
        problems.append("no layer runs on the DLA, which this engine is for")
    content = bytes(engine)
    layers = _layers(trt, log, content, plan)
    problems += all_float(plan, layers)
    messages += [*implicit.messages, *logged(log, "WARNING")]
    return Built(content, layers, messages, problems, time.time() - started, on_dla)


def _overlooked(warnings: list[str], implicit: ImplicitInt8) -> list[str]:
    """Tensors of INT8 layers that were given a scale, and TensorRT says there is none."""
    return [
        f"TensorRT found no scale for tensor {name!r} of an INT8 layer, though it was given one"
        for name in unscaled_tensors("\n".join(warnings))
        if name in implicit.tensors and not any(repr(name) in text for text in implicit.problems)
    ]


def _refusal(trt: Any, log: Any, problems: list[str]) -> str:
    reason = "; ".join([*problems, last_errors(log, "it gives no reason")])
    return f"{version_text(trt)} can't build the engine: {reason}"


def _layers(trt: Any, log: Any, content: bytes, plan: BuildPlan) -> list[dict[str, Any]]:
    """The layers of the engine as this GPU loads it."""
    runtime = made(log, "runtime", trt.Runtime, log)
    core = plan.dla_core if plan.use_dla else None
    engine = read_engine(trt, log, runtime, content, core, plan.version_compatible)
    usual = {name: shapes[1] for name, shapes in plan.profiles.items()}
    return inspected_layers(trt, engine, usual)
