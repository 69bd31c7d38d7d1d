"""An Expand in front of arithmetic that broadcasts by itself goes.

    Expand(s, sizes of x) -> Mul(x)   =>   Mul(x, s)

Bit-identical. It pays because the expanded map is written and read for nothing: what PyTorch's
exporters make of F.normalize, of expand_as in squeeze-and-excitation and of broadcast views.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.graph import elements, itemsize, producer
from deploy.surgery.known_sizes import sizes_of
from deploy.surgery.region import sole_use
from deploy.surgery.rewrite import New, Replace, Skip
from deploy.surgery.size_rules import broadcast

_BROADCASTS = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "Where", "Mod"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor"),
)


def remove_expand(node: gs.Node) -> Replace | Skip | None:
    """Let this node read what an Expand in front of it reads."""
    if node.op not in _BROADCASTS:
        return None
    expands = {
        id(expand): (index, expand)
        for index, value in enumerate(node.inputs)
        if (expand := producer(value)) is not None and expand.op == "Expand"
    }
    whole = broadcast([sizes_of(value) for value in node.inputs])
    for index, expand in expands.values():
        # wherever the node reads it: what is left of it would stay
        expanded = node.inputs[index]
        inputs = [expand.inputs[0] if value is expanded else value for value in node.inputs]
        if whole is None or broadcast([sizes_of(value) for value in inputs]) != whole:
            continue
        removed = sole_use(node, [expand])
        new = New(node.op, tuple(inputs), (node.outputs[0],), dict(node.attrs))
        size = elements(expanded) or 0
        saved = 2 * size * itemsize(expanded) if len(removed) > 1 else 0
        return Replace(removed, (new,), f"{node.op} broadcasts without Expand", saved)
    if expands:
        return Skip(f"{node.op} isn't known to give as many elements without Expand")
    return None
