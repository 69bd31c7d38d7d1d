"""bfloat16 where the graph itself has to be written in it, and the device reads too old an opset.

A strongly typed compiler computes in the types of the graph, and bfloat16 came to most operators
with opset 22 (ONNX, docs/Changelog.md). A weakly typed compiler chooses it by a flag.
"""

from __future__ import annotations

from deploy.doctor.case import Case, Finding
from deploy.floats.float_rules import HALVES
from deploy.floats.mixed_floats import in_opset_of
from deploy.nvidia.dialect import too_new


def strong_typing(case: Case) -> list[Finding]:
    """What the build refuses when it writes the graph that is sent."""
    if case.nvidia is None or case.nvidia.typing != "strong" or case.precision != "bf16":
        return []
    problem = too_new(in_opset_of(HALVES["bf16"], case.fused), "bf16", case.target)
    return [Finding("strong_typing", "stop", problem)] if problem else []
