"""Operators that the parser of the target's release can't read."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.analysis.parser_operators import first_with, release_for
from deploy.doctor.case import Case, Finding, labels, some

_ONNX = (None, "", "ai.onnx")
# what fusions of that name write out
_EXPANSIONS = {
    "Gelu": "expand_gelu",
    "GroupNormalization": "expand_group_norm",
    "LayerNormalization": "expand_layer_norm",
    "Mish": "expand_mish",
    "RMSNormalization": "expand_rms_norm",
    "Swish": "expand_swish",
}


def operators(case: Case) -> list[Finding]:
    """A finding per operator that is still there after the target's fusions."""
    nvidia = case.nvidia
    if nvidia is None:
        return []
    found = []
    for operator, nodes in _by_operator(case).items():
        lacking = [v for v in nvidia.versions if release_for(nvidia.library, v).lacks(operator)]
        if not lacking:
            continue
        later = first_with(nvidia.library, operator)
        has = f"{case.library(str(later))} has it" if later else "no release has it"
        found.append(
            Finding(
                "operators",
                "stop",
                f"{operator} ({some(labels(nodes))}) has no importer in "
                f"{case.library(' and '.join(lacking))}; {has}{_kept(case, operator)}. "
                "Export it with other operators",
                labels(nodes),
            )
        )
    return found


def _by_operator(case: Case) -> dict[str, list[gs.Node]]:
    found: dict[str, list[gs.Node]] = {}
    for node in case.nodes:
        if node.domain in _ONNX:
            found.setdefault(node.op, []).append(node)
    return found


def _kept(case: Case, operator: str) -> str:
    """Why the fusion that writes the operator out left it."""
    rule = _EXPANSIONS.get(operator, "")
    reasons = {d.reason for d in case.decisions if d.rule == rule and d.outcome == "skipped"}
    return f"; {rule} left it ({'; '.join(sorted(reasons))})" if reasons else ""
