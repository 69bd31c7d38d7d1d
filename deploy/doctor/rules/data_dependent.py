"""Shapes that only the data tells: how many boxes, how many nonzero elements."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.doctor.case import Case, Finding, counted, labels, some
from deploy.surgery.graph import producer

# operators whose output's size is a result
_COUNTS = ("NonZero", "NonMaxSuppression", "Unique", "Compress")
# operator -> inputs that are sizes
_SIZES = {
    "Reshape": (1,),
    "Expand": (1,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "Tile": (1,),
    "Resize": (2, 3),
    "TopK": (1,),
    "Slice": (1, 2),
    "Pad": (1,),
    "OneHot": (1,),
}
_ONLY_SHAPES = ("Shape", "Size")


def data_dependent(case: Case) -> list[Finding]:
    """Operators that count, and sizes computed from values rather than from shapes."""
    if case.nvidia is None:
        return []
    found = []
    counting = [node for node in case.nodes if node.op in _COUNTS]
    if counting:
        text = (
            f"{counted(n.op for n in counting)} ({some(labels(counting))}): how large the result "
            "is only a run tells. TensorRT allocates for the most there can be, and what reads it "
            "has free dimensions; take this part out of the model if the host can do it"
        )
        found.append(Finding("data_dependent", "warning", text, labels(counting)))
    computed = [node for node in case.nodes if node not in counting and _from_values(node)]
    if computed:
        text = (
            f"sizes computed from the values of the data: {counted(n.op for n in computed)} "
            f"({some(labels(computed))}); TensorRT takes sizes from shapes and constants, or "
            "refuses"
        )
        found.append(Finding("data_dependent", "warning", text, labels(computed)))
    return found


def _from_values(node: gs.Node) -> bool:
    return any(
        index < len(node.inputs) and _depends_on_values(node.inputs[index])
        for index in _SIZES.get(node.op, ())
    )


def _depends_on_values(tensor: gs.Tensor) -> bool:
    """Whether a value comes from an input of the model other than through its shape."""
    seen, left = set(), [tensor]
    while left:
        value = left.pop()
        if id(value) in seen or isinstance(value, gs.Constant) or value.is_empty():
            continue
        seen.add(id(value))
        source = producer(value)
        if source is None:
            return True
        if source.op not in _ONLY_SHAPES:
            left += source.inputs
    return False
