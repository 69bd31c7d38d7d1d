"""What an engine is built from, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
