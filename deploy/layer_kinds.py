"""What a layer is, in the words a search or a person leaves it out of INT8 by.

"Conv", "Gemm", "Add", …       the operator
"Conv:depthwise"               one input and one output channel per group, or several outputs
"Conv:grouped"                 other groups
"Conv:pointwise"               1x1, one group
"Conv:spatial"                 larger kernels, one group
"Conv:squeezed"                on a 1x1 map, as in squeeze-and-excitation (besides one of those)
"Conv:excited"                 depthwise, its result scaled by squeeze-and-excitation (besides)
"first", "last"                layers with weights that have no other such layer before (behind)
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_graphsurgeon as gs

from deploy.surgery.channels import excited
from deploy.surgery.elementwise import ELEMENTWISE

CONVOLUTIONS = ("depthwise", "grouped", "pointwise", "spatial", "squeezed", "excited")
ENDS = ("first", "last")
_CONVOLVES = ("Conv", "ConvTranspose")
# a swish written out has three nodes between a convolution and its excitation
_ACTIVATION_NODES = 4
KINDS = (*ENDS, *(f"{op}:{name}" for op in _CONVOLVES for name in CONVOLUTIONS))


def kinds(node: gs.Node) -> list[str]:
    """What the node is by itself, the operator first; "first" and "last" are not among it."""
    if node.op not in _CONVOLVES:
        return [node.op]
    shape = node.inputs[1].shape or ()
    group = int(node.attrs.get("group", 1))
    one_each = shape[1:2] == (1,) if isinstance(shape, tuple) else list(shape[1:2]) == [1]
    if group > 1:
        name = "depthwise" if one_each else "grouped"
    else:
        name = "pointwise" if all(d == 1 for d in shape[2:]) else "spatial"
    found = [node.op, f"{node.op}:{name}"]
    area = (node.inputs[0].shape or ())[2:]
    if area and all(d == 1 for d in area):
        found.append(f"{node.op}:squeezed")
    if name == "depthwise" and _is_excited(node):
        found.append(f"{node.op}:excited")
    return found


def _is_excited(node: gs.Node) -> bool:
    """Whether the result, or what an activation makes of it, is a map that factors per channel
    scale."""
    values = list(node.outputs)
    for _ in range(_ACTIVATION_NODES):
        readers = [reader for value in values for reader in value.outputs]
        scaled = [excited(reader) for reader in readers]
        if any(found is not None and any(found[0] is v for v in values) for found in scaled):
            return True
        following = [r for r in readers if r.op in ELEMENTWISE and excited(r) is None]
        values += [t for r in following for t in r.outputs if all(t is not v for v in values)]
    return False


def first_and_last(layers: Iterable[gs.Node]) -> dict[int, list[str]]:
    """Per id of a layer: whether it is "first", "last", both or neither of these layers."""
    listed = list(layers)
    behind = _reached([t for n in listed for t in n.outputs], down=True)
    before = _reached([t for n in listed for t in n.inputs], down=False)
    return {
        id(n): [
            end for end, others in zip(ENDS, (behind, before), strict=True) if id(n) not in others
        ]
        for n in listed
    }


def _reached(tensors: list[gs.Tensor], *, down: bool) -> set[int]:
    """Ids of all nodes the tensors lead to (down), or are made by (up)."""
    found: set[int] = set()
    waiting = list(tensors)
    while waiting:
        tensor = waiting.pop()
        for node in tensor.outputs if down else tensor.inputs:
            if id(node) not in found:
                found.add(id(node))
                waiting += node.outputs if down else node.inputs
    return found
