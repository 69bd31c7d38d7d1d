"""If, Loop and Scan: what is in their bodies stays as it is."""

from __future__ import annotations

from deploy.doctor.case import Case, Finding, counted, labels, some

_CONTROL = ("If", "Loop", "Scan")


def control_flow(case: Case) -> list[Finding]:
    """That bodies stay float, and run on the GPU."""
    nodes = [node for node in case.nodes if node.op in _CONTROL]
    if not nodes:
        return []
    inside = sum(len(body.nodes) for node in nodes for body in node.subgraphs())
    dla = ", and on the GPU" if case.nvidia is not None and case.nvidia.use_dla else ""
    text = (
        f"{counted(node.op for node in nodes)} ({some(labels(nodes))}): the {inside} nodes in "
        f"their bodies are neither fused nor quantized; they run in float{dla}"
    )
    return [Finding("control_flow", "warning", text, labels(nodes))]
