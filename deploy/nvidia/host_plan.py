"""The plan of an engine that is built on this machine, from a target's settings."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

from deploy.artifacts.model import Model
from deploy.errors import BuildError
from deploy.nvidia.carried import told_in
from deploy.nvidia.profiles import profiles
from deploy.nvidia.settings import Nvidia
from deploy.on_device.trt_plan import BuildPlan
from deploy.target import QUANTIZED, EngineSettings

_TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}


def host_plan(
    model: Model, settings: EngineSettings, nvidia: Nvidia, precision: str, version: str = ""
) -> BuildPlan:
    """What TensorRT is told; BuildError for INT8 of which graph and metadata say nothing, and for
    free sizes. version: of the TensorRT that is here, which its cache has to name; the target's
    where not given."""
    nodes = model.proto.graph.node
    quantized = any(node.op_type == "DequantizeLinear" for node in nodes)
    told = told_in(model) if precision == "int8" else None
    if precision in QUANTIZED and not quantized and told is None:
        raise BuildError(
            f"{model.name}: {precision}, and the graph has no Q/DQ; quantize it first, or let "
            "`deploy build` make all of it"
        )
    plan = BuildPlan(
        model=model.serialized if told is None else told.model.serialized,
        precision=precision,
        rest=rest_in(settings, precision),
        quantization="explicit" if quantized else "none",
        typing=nvidia.typing,
        profiles=_profiles(model, settings, nvidia),
        use_dla=nvidia.use_dla,
        workspace_bytes=nvidia.workspace_bytes,
        version_compatible=nvidia.version_compatible,
        hardware_compatible=nvidia.hardware_compatible,
        timing_cache=_timing_cache(settings, nvidia),
    )
    if told is not None:
        plan.tell_beside(told.cache(version or nvidia.versions[0]), dict(told.precisions))
    return plan


def rest_in(settings: EngineSettings, precision: str) -> str:
    """The float type of what isn't int8; float32 where the target doesn't say."""
    hint = settings.inference_precision.get(precision, "")  # type: ignore[call-overload]
    return _TYPES[hint] if hint else "fp32" if precision in QUANTIZED else precision


def _profiles(
    model: Model, settings: EngineSettings, nvidia: Nvidia
) -> dict[str, tuple[Any, Any, Any]]:
    """The sizes of every input that has free ones: around the samples', and the batch as the
    settings fix it or leave it."""
    found: dict[str, tuple[Any, Any, Any]] = {}
    for spec in model.inputs:
        if None in spec.shape[1:] and spec.name not in nvidia.sizes:
            raise BuildError(
                f"{model.name}: input {spec} is free in more than its batch, and TensorRT has to "
                f"know the sizes; give --shape {spec.name}=…"
            )
        if None not in spec.shape:
            continue
        rows = profiles([spec], nvidia.sizes)[spec.name]
        if settings.batch != "dynamic" and spec.shape[0] is None:
            rows = {key: [settings.batch, *row[1:]] for key, row in rows.items()}
        found[spec.name] = (rows["min"], rows["opt"], rows["max"])
    return found


def _timing_cache(settings: EngineSettings, nvidia: Nvidia) -> str:
    """What kernels took, so that of several engines each is timed once: in the folder that the
    settings name, else for this process alone."""
    folder = Path(settings.cache_dir) if settings.cache_dir else _scratch()
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"timing-{nvidia.library}-{nvidia.versions[0]}-sm{nvidia.sm}.cache")


@functools.cache
def _scratch() -> Path:
    """A folder of this process, removed when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="onnx-deploy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
