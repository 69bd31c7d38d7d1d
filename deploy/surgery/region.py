"""The piece of a graph that ends at one node: what lies in it, what may go, what that saves."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deploy.surgery.graph import elements, is_output, itemsize, producer

_DEEPEST = 20


def sole_use(end: gs.Node, inner: Iterable[gs.Node]) -> tuple[gs.Node, ...]:
    """`end` and those of the inner nodes that nothing else needs: what a replacement of `end`
    may remove. The others stay, with their readers."""
    inside = {id(node): node for node in inner if node is not end}
    found = {id(end): end}
    grew = True
    while grew:
        grew = False
        for key, node in inside.items():
            readers = [id(reader) for tensor in node.outputs for reader in tensor.outputs]
            asked_for = any(is_output(tensor) for tensor in node.outputs)
            if key not in found and readers and not asked_for and all(r in found for r in readers):
                found[key] = node
                grew = True
    return tuple(found.values())


def between(end: gs.Node, start: gs.Tensor) -> list[gs.Node]:
    """The nodes on the ways from a tensor to a node, the node included."""
    reaches: dict[int, bool] = {}
    order: list[gs.Node] = []

    def visit(node: gs.Node, depth: int) -> bool:
        if id(node) not in reaches:
            reaches[id(node)] = False
            for tensor in node.inputs:
                before = producer(tensor)
                hit = tensor is start or (
                    before is not None and depth > 0 and visit(before, depth - 1)
                )
                reaches[id(node)] = reaches[id(node)] or hit
            if reaches[id(node)]:
                order.append(node)
        return reaches[id(node)]

    visit(end, _DEEPEST)
    return order


def bytes_saved(removed: Iterable[gs.Node], x: gs.Tensor) -> int:
    """Traffic of these nodes, less that of one node which reads x and writes as much; per sample.
    0 where a size is unknown."""
    touched = [t for node in removed for t in (*node.inputs, *node.outputs)]
    sizes = [elements(t) for t in (*touched, x) if not isinstance(t, gs.Constant)]
    if None in sizes:
        return 0
    moved = sum(size for size in sizes if size is not None) - 3 * (sizes[-1] or 0)
    return max(moved, 0) * itemsize(x)


def sole_reader(tensor: gs.Tensor) -> gs.Node | None:
    """The one node that reads a tensor; None when none or several do, or the model gives it out."""
    readers = {id(reader): reader for reader in tensor.outputs}
    return next(iter(readers.values())) if len(readers) == 1 and not is_output(tensor) else None


def type_name(tensor: gs.Tensor) -> str:
    """The element type for a message; graphsurgeon keeps those NumPy lacks as ONNX numbers."""
    if isinstance(tensor.dtype, int):
        return str(onnx.TensorProto.DataType.Name(tensor.dtype)).lower()
    return "of unknown type" if tensor.dtype is None else str(np.dtype(tensor.dtype))
