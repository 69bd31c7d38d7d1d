"""Grouped convolutions of odd sizes, for which TensorRT has no INT8 kernel.

NvInfer.h of 8.5.2 and 10.3.0, IConvolutionLayer::setNbGroups: in INT8 the channels per group have
to be a multiple of 4, for input and output. Depthwise convolutions have kernels of their own.
TensorRT-RTX 1.7.1 pads such groups and compiles them to INT8 (seen, 10 channels per group).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.doctor.case import Case, Finding, labels, some

_MULTIPLE = 4


def grouped_int8(case: Case) -> list[Finding]:
    """The convolutions that may run in float whatever the placement says."""
    nvidia = case.nvidia
    if nvidia is None or nvidia.library != "tensorrt" or case.precision != "int8":
        return []
    odd = [node for node in case.graph.nodes if node.op == "Conv" and _odd(node)]
    if not odd:
        return []
    text = (
        f"grouped convolutions, {len(odd)} ({some(labels(odd))}), without a multiple of "
        f"{_MULTIPLE} channels in and out per group, which {case.library()} asks for in INT8; "
        "expect them in float"
    )
    return [Finding("grouped_int8", "warning", text, labels(odd))]


def _odd(node: gs.Node) -> bool:
    groups = int(node.attrs.get("group", 1))
    out, each = (int(size) for size in node.inputs[1].shape[:2])
    return groups > 1 and each > 1 and bool(each % _MULTIPLE or (out // groups) % _MULTIPLE)
