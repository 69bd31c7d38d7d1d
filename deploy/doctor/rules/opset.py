"""Whether the model can be written in an opset that the target reads."""

from __future__ import annotations

from deploy.doctor.case import Case, Finding


def opset(case: Case) -> list[Finding]:
    """That the opset is lowered, or what is in the way."""
    highest = case.target.quantization.highest_opset
    if highest is None:
        return []
    if case.obstacle:
        text = (
            f"opset {case.fused.opset}, and {case.library()} reads up to {highest}: "
            f"{case.obstacle}; export the model with opset {highest}"
        )
        return [Finding("opset", "stop", text)]
    if case.lowered_from:
        text = f"opset {case.lowered_from} is written as {highest}, every operator means the same"
        return [Finding("opset", "note", text)]
    return []
