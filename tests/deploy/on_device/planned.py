"""Plans of a small network for every TensorRT the double knows, and the double installed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

from dialects import dialect
from doubles import Gpu, Installed, installed
from tiny_models import ranges_of, residual, samples_of

from deploy.artifacts.model import Model
from deploy.nvidia.implicit import Implicit, implicit
from deploy.on_device.calibration_cache import cache_scales
from deploy.on_device.trt_plan import BuildPlan
from deploy.quantize import quantize


@dataclass(frozen=True)
class Release:
    """A TensorRT on a device that has it."""

    version: str
    sm: int
    memory: str
    typing: str = "weak"

    def on(self, **gpu: Any) -> AbstractContextManager[Installed]:
        """That TensorRT and its GPU, as doubles."""
        return installed(self.version, memory=self.memory, gpu=Gpu(self.sm, **gpu))


XAVIER = Release("8.5.2", 72, "pycuda")
T4 = Release("8.6.1", 75, "cudart")
ORIN = Release("10.3", 87, "cuda-python")
H100 = Release("10.16.1", 90, "cuda-python")
STRONG = Release("10.16.1", 90, "cuda-python", "strong")
LATEST = Release("11.4", 90, "cuda-python", "strong")
RELEASES = {"8.5": XAVIER, "8.6": T4, "10.3": ORIN, "10.16": H100, "strong": STRONG, "11": LATEST}
WEAK = {name: release for name, release in RELEASES.items() if release.typing == "weak"}
LISTED = ("conv1", "relu1", "conv2", "add", "relu2", "pool", "flatten", "head")

NETWORK = residual(1)
(SAMPLE,) = samples_of(NETWORK, 1)


def float_plan(release: Release, model: Model = NETWORK, **more: Any) -> BuildPlan:
    """A network without INT8."""
    return BuildPlan(model.serialized, typing=release.typing, **more)


def explicit_plan(release: Release, **more: Any) -> BuildPlan:
    """The network with Q/DQ in it."""
    return BuildPlan(
        quantized().serialized,
        precision="int8",
        quantization="explicit",
        typing=release.typing,
        **more,
    )


@cache
def quantized() -> Model:
    """The network with Q/DQ, as TensorRT from 8.5 on reads it."""
    return quantize(NETWORK, ranges_of(NETWORK), dialect("tensorrt_8_5"))


@cache
def described() -> Implicit:
    """The network's INT8 beside it."""
    return implicit(NETWORK, ranges_of(NETWORK), dialect("tensorrt_implicit"), rest="fp16")


def implicit_plan(release: Release, **more: Any) -> BuildPlan:
    """The network with a cache for this release and its layer list."""
    made = described()
    cache = made.cache(".".join((release.version + ".0").split(".")[:3]))
    fields: dict[str, Any] = {
        "model": made.model.serialized,
        "precision": "int8",
        "rest": "fp16",
        "quantization": "implicit",
        "cache": cache,
        "scales": cache_scales(cache),
        "layer_precisions": dict(made.precisions),
    }
    return BuildPlan(**{**fields, **more})
