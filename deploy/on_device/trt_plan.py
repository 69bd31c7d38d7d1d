"""What an engine is built from, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from deploy.on_device.calibration_cache import cache_scales


@dataclass
class BuildPlan:
    """Everything that decides an engine.

    model: the ONNX file's content. precision: int8, fp16, bf16, fp32 or fp8; rest: fp16, bf16 or
    fp32, the type of what isn't int8 or fp8. quantization: explicit (Q/DQ), implicit (cache and
    layer list) or none. typing: weak, where flags choose types, or strong, where the graph does.
    cache: a calibration cache's text; scales: its scale per tensor. use_ranges: give them as
    dynamic ranges, without a calibrator. layer_precisions: per ONNX node, "*" for the rest; obey:
    fail where one can't be kept, else TensorRT falls back. profiles: per dynamic input its
    smallest, usual and largest shape. workspace_bytes: 0 leaves the vendor's default.
    timing_cache: a file that is read if it's there, and written. tf32: let float32 run in 19 bits.
    """

    model: bytes
    precision: str = "fp32"
    rest: str = "fp32"
    quantization: str = "none"
    typing: str = "weak"
    cache: str = ""
    scales: dict[str, float] = field(default_factory=dict)
    layer_precisions: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, tuple[Any, Any, Any]] = field(default_factory=dict)
    use_dla: bool = False
    dla_core: int = 0
    workspace_bytes: int = 0
    plugin_libraries: list[str] = field(default_factory=list)
    timing_cache: str = ""
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    use_ranges: bool = False
    obey: bool = False
    tf32: bool = False

    def tell_beside(self, cache: str, precisions: dict[str, str], way: str = "") -> None:
        """INT8 by a cache and a precision per layer; way: how its scales go in, "cache" or
        "ranges", "" for the better one here (`usual_scales`)."""
        self.quantization = "implicit"
        self.cache, self.scales = cache, cache_scales(cache)
        self.layer_precisions = precisions
        self.use_ranges = (way or usual_scales(self.use_dla)) == "ranges"


def usual_scales(use_dla: bool) -> str:
    """How INT8's scales beside a float graph go in, "cache" or "ranges".

    As dynamic ranges on a GPU: they need no header that fits the release to the last digit, and
    are set tensor by tensor, so that a name the network doesn't have is seen. As the cache on a
    DLA: NVIDIA's documented recipe there.
    """
    return "cache" if use_dla else "ranges"


@dataclass
class Built:
    """An engine and what TensorRT said of it.

    layers: name, kind, precision, kernel, fused_from each. messages: its warnings and what was
    left out or filled in. problems: why the engine isn't what the plan asked for. on_dla: with a
    DLA, whether each layer of the network can run there.
    """

    engine: bytes
    layers: list[dict[str, Any]]
    messages: list[str]
    problems: list[str]
    seconds: float
    on_dla: dict[str, bool] = field(default_factory=dict)
