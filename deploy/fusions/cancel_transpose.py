"""Transposes that meet become one, or none.

    Transpose -> Transpose  =>  Transpose, or nothing where they undo each other
    Transpose in the order things are, or twice the same on one value  =>  nothing, one
    Transpose that only moves axes of size 1  =>  Reshape

It pays because a Transpose reads and writes the whole value and computes nothing; a Reshape moves
nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.axis_order import (
    Order,
    data_bytes,
    is_identity,
    only_relabels,
    permutation,
    then,
)
from deploy.surgery.graph import is_output, producer
from deploy.surgery.rewrite import New, Replace, Skip


def cancel_transpose(node: gs.Node) -> Replace | Skip | None:
    """Do without this Transpose, or without the one in front of it."""
    perm = permutation(node)
    if perm is None:
        return None
    if is_identity(perm) or _moves_ones_to_ones(perm, node.inputs[0].shape):
        return _without((node,), node.inputs[0], "a Transpose that moves no axis")
    inner = producer(node.inputs[0])
    first = None if inner is None else permutation(inner)
    if inner is not None and first is not None:
        return _pair(inner, node, then(first, perm))
    twin = next((r for r in node.inputs[0].outputs if permutation(r) == perm), node)
    if twin is not node:
        return _without((node,), twin.outputs[0], "the same Transpose of the same value")
    return _reshaped(node, perm)


def _moves_ones_to_ones(perm: Order, shape: Sequence[object] | None) -> bool:
    """Whether axes of size 1 change places with each other only."""
    if shape is None or not only_relabels(perm, shape):
        return False
    return [shape[axis] == 1 for axis in perm] == [size == 1 for size in shape]


def _pair(inner: gs.Node, node: gs.Node, order: Order) -> Replace | Skip:
    """Two Transposes in a row, together in that order."""
    alone = len(inner.outputs[0].outputs) == 1 and not is_output(inner.outputs[0])
    both = (inner, node) if alone else (node,)
    if is_identity(order):
        return _without(both, inner.inputs[0], "two Transposes undo each other")
    if not alone:
        return Skip(f"{inner.outputs[0].name!r} is needed elsewhere too: one Transpose each stays")
    new = New("Transpose", (inner.inputs[0],), (node.outputs[0],), {"perm": list(order)})
    saved = 2 * data_bytes(node.outputs[0])
    return Replace(both, (new,), "two Transposes merged into one", saved)


def _without(gone: Sequence[gs.Node], value: gs.Tensor, reason: str) -> Replace:
    """The graph without these nodes, where `value` is what the last of them gave."""
    result = gone[-1].outputs[0]
    saved = sum(2 * data_bytes(node.outputs[0]) for node in gone)
    if not is_output(result):
        readers = _distinct(result.outputs)
        new = [_reading(reader, result, value) for reader in readers]
        return Replace((*gone, *readers), tuple(new), reason, saved)
    source = producer(value)
    if source is None or is_output(value):
        # both names have to stay: a copy, as cheap as the Transpose it replaces or cheaper
        copy = New("Identity", (value,), (result,))
        kept = saved - 2 * data_bytes(result)
        return Replace(tuple(gone), (copy,), f"{reason}; a copy stays for the output", kept)
    readers = [r for r in _distinct(value.outputs) if not any(r is node for node in gone)]
    outputs = tuple(result if output is value else output for output in source.outputs)
    renamed = New(source.op, tuple(source.inputs), outputs, source.attrs, source.domain)
    new = [_reading(reader, value, result) for reader in readers]
    return Replace((*gone, source, *readers), (renamed, *new), reason, saved)


def _distinct(nodes: Sequence[gs.Node]) -> list[gs.Node]:
    """Each node once: one that reads a value twice is listed twice."""
    return list({id(node): node for node in nodes}.values())


def _reading(reader: gs.Node, old: gs.Tensor, new: gs.Tensor) -> New:
    """The reader with another value in place of `old`."""
    inputs = tuple(new if value is old else value for value in reader.inputs)
    return New(reader.op, inputs, tuple(reader.outputs), reader.attrs, reader.domain)


def _reshaped(node: gs.Node, perm: Order) -> Replace | Skip | None:
    shape = node.inputs[0].shape
    if shape is None or not only_relabels(perm, shape):
        return None
    target = []
    for place, axis in enumerate(perm):
        size = shape[axis]
        free = 0 if place == axis else -1
        target.append(size if isinstance(size, int) else free)
    if 0 in shape:
        return Skip(f"{shape} is empty, and a Reshape reads zeros as copies")
    if target.count(-1) > 1:
        return Skip(f"more than one free dimension of {shape} moves")
    new = New("Reshape", (node.inputs[0], np.asarray(target, np.int64)), (node.outputs[0],))
    saved = 2 * data_bytes(node.outputs[0])
    return Replace((node,), (new,), "only axes of size 1 moved: a Reshape", saved)
