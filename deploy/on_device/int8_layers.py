"""How much of an engine runs in 8 bits, INT8 or FP8, and why each layer that should doesn't."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.on_device.trt_plan import BuildPlan

# the precisions that quantize
EIGHT_BITS = ("int8", "fp8")
# layer types, in the inspector's words of any version, that multiply weights
_WEIGHTED = re.compile(r"(?i)conv|gemm|matrix_?multiply|matmul|fully_?connected")


def all_float(plan: BuildPlan, layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """A problem where INT8 was told beside the graph and no layer took it; nothing elsewhere.

    On a DLA a whole network may be one layer, and Q/DQ may be inside of one: neither tells.
    """
    told = {layer["precision"] for layer in layers} - {""}
    beside = plan.quantization == "implicit" and not plan.use_dla
    if not beside or not told or "int8" in told:
        return []
    return [f"no layer runs in INT8, which this engine is for: all are {', '.join(sorted(told))}"]


def int8_row(
    layers: Sequence[Mapping[str, Any]],
    precisions: Mapping[str, str],
    messages: Sequence[str] = (),
    kind: str = "int8",
) -> dict[str, Any]:
    """Layers in 8 bits, layers in float, and those that should be in 8 bits and aren't, with a
    reason.

    layers: as the engine's inspector lists them. precisions: by layer, what was asked for; where
    there is nothing, every layer with weights should be in 8 bits. messages: TensorRT's warnings.
    kind: the 8 bits that are meant, "int8" or "fp8".
    """
    quantized = [layer for layer in layers if layer["precision"] == kind]
    return {
        "layers_int8": len(quantized),
        "layers_float": len(layers) - len(quantized),
        "not_int8": [
            {"name": layer["name"], "reason": _why_float(layer, messages)}
            for layer in layers
            if layer["precision"] != kind and _should_be(layer, precisions, kind)
        ],
    }


def _should_be(layer: Mapping[str, Any], precisions: Mapping[str, str], kind: str) -> bool:
    if precisions:
        nodes = [layer["name"], *layer["fused_from"]]
        return any(precisions.get(node) == kind for node in nodes)
    return bool(_WEIGHTED.search(layer["kind"]))


def _why_float(layer: Mapping[str, Any], messages: Sequence[str]) -> str:
    """TensorRT's own words where it names the layer; else what it did."""
    names = [name for name in (layer["name"], *layer["fused_from"]) if name]
    for text in messages:
        if any(_names(text, name) for name in names):
            return " ".join(text.split())
    if not layer["precision"]:
        return "TensorRT doesn't tell its type"
    return f"TensorRT chose {layer['precision']}, kernel {layer['kernel']}"


def _names(text: str, name: str) -> bool:
    """Whether a text has that name as a word of its own: conv1 isn't named by conv10."""
    return re.search(rf"(?<![\w/.]){re.escape(name)}(?![\w/])", text) is not None
