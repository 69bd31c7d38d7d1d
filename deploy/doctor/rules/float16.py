"""What may not fit into float16, where the target computes in it."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.doctor.case import Case, Finding, counted, labels, some
from deploy.floats.float_rules import HALVES, Rules, floats
from deploy.surgery.graph import constant, label

_LARGEST = HALVES["fp16"].largest
# those the rules call risky for lack of ranges, and that overflow in practice
_GROWING = ("Exp", "Pow", "ReduceSumSquare", "ReduceL2", "ReduceProd", "Softplus")


def float16(case: Case) -> list[Finding]:
    """Constants beyond the type, and operators whose results may leave it."""
    hint = case.target.engine.inference_precision.get(case.precision, "")
    if hint != "f16":
        return []
    return [*_constants(case), *_operators(case)]


def _constants(case: Case) -> list[Finding]:
    large: dict[str, float] = {}
    for node in case.nodes:
        for tensor in floats(node.inputs):
            values = constant(tensor)
            if values is not None and values.size:
                size = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
                if size > _LARGEST:
                    large[f"{tensor.name} in {label(node)}"] = size
    if not large:
        return []
    text = (
        f"constants beyond float16's {_LARGEST:.0f}, {max(large.values()):.3g} at most "
        f"({some(large)}): they become infinite where their layer runs in fp16; build with --fp32 "
        "if parity fails"
    )
    return [Finding("float16", "warning", text, tuple(large))]


def _summed_square(node: gs.Node) -> bool:
    """Whether a value is multiplied with itself and summed, as in a variance that is written out:
    beyond 256 the square alone is too large."""
    if node.op != "Mul" or node.inputs[0] is not node.inputs[1]:
        return False
    return any(reader.op in ("ReduceMean", "ReduceSum") for reader in node.outputs[0].outputs)


def _operators(case: Case) -> list[Finding]:
    """Growing operators; the square in a normalization that is written out is the usual case."""
    rules = Rules(HALVES["fp16"], case.fused.opset)
    risky: list[gs.Node] = []
    for node in case.graph.nodes:
        if not floats([*node.inputs, *node.outputs]) or not floats(node.inputs):
            continue
        if (rules.refusal(node) is not None and node.op in _GROWING) or _summed_square(node):
            risky.append(node)
    if not risky:
        return []
    text = (
        f"may leave float16's range, which parity shows: {counted(node.op for node in risky)} "
        f"({some(labels(risky))})"
    )
    return [Finding("float16", "note", text, labels(risky))]
