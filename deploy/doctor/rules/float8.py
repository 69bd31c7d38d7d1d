"""Convolutions for which NVIDIA has no FP8 kernel: they stay float16, where INT8 would take them.

Sources: deploy/placements/tensorrt_float8.py.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.doctor.case import Case, Finding, labels, some
from deploy.layer_kinds import kinds

_GROUPED = {"Conv:depthwise", "Conv:grouped"}


def float8(case: Case) -> list[Finding]:
    """A warning that INT8 suits the model better."""
    form = case.target.float8
    if case.precision != "fp8" or form is None:
        return []
    convolutions = [n for n in case.graph.nodes if n.op == "Conv"]
    grouped = [n for n in convolutions if _GROUPED & set(kinds(n))]
    if "Conv" in form.keep_float:
        return _all_of_them(case, convolutions, form.why)
    if not grouped:
        return []
    text = (
        f"{len(grouped)} of {len(convolutions)} convolutions ({some(labels(grouped))}) are grouped "
        f"or depthwise, which {case.library()} doesn't run in FP8; NVIDIA recommends INT8 for such "
        "networks: compare with --int8"
    )
    return [Finding("float8", "warning", text, labels(grouped))]


def _all_of_them(case: Case, convolutions: list[gs.Node], why: str) -> list[Finding]:
    if not convolutions:
        return []
    text = f"{len(convolutions)} convolutions stay float ({why}); compare with --int8 and --fp16"
    return [Finding("float8", "warning", text, labels(convolutions))]
