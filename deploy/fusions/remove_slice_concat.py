"""Cutting what was just joined, joining what was just cut, and cutting twice, disappear.

    Split -> Concat (all parts, in order)     =>   the source
    Concat -> Split (into the same parts)     =>   the parts
    Concat -> Slice (within one part)         =>   Slice of that part, or the part
    Slice -> Slice                            =>   one Slice
    Concat -> Concat (same axis)              =>   one Concat
    Slice of everything; Concat or Split of one   =>   nothing

Bit-identical. It pays because each of these copies what it is given, and computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, elements, itemsize, label, producer
from deploy.surgery.rewrite import New, Replace, Skip
from deploy.surgery.slicing import Cut, axis_of, cuts_of, size, slice_inputs, takes_all


def remove_slice_concat(node: gs.Node) -> Replace | Skip | None:
    """Take this Slice, Split or Concat out where it undoes or repeats what is in front of it."""
    if node.op == "Slice":
        return _slice(node)
    if node.op == "Split":
        return _split(node)
    return _concat(node) if node.op == "Concat" else None


def _slice(node: gs.Node) -> Replace | Skip | None:
    source = node.inputs[0]
    cuts = cuts_of(node)
    if cuts is not None and takes_all(source, cuts):
        return _bypass(node, [(node.outputs[0], source)], "Slice takes everything")
    front = producer(source)
    if front is None or front.op not in ("Slice", "Concat"):
        return None
    if cuts is None:
        return Skip("what this Slice takes isn't known before it runs")
    return (
        _slice_of_slice(node, front, cuts)
        if front.op == "Slice"
        else _slice_of_concat(node, front, cuts)
    )


def _slice_of_slice(node: gs.Node, inner: gs.Node, cuts: dict[int, Cut]) -> Replace | Skip:
    first = cuts_of(inner)
    if first is None:
        return Skip(f"what {label(inner)!r} takes isn't known before it runs")
    wide = [reader for reader in inner.outputs[0].outputs if reader.op != "Slice"]
    if wide:
        return Skip(f"{label(wide[0])!r} reads all of {inner.outputs[0].name!r}")
    whole = Cut(0, None)
    merged = {
        axis: cuts.get(axis, whole).within(first.get(axis, whole))
        for axis in sorted({*first, *cuts})
    }
    new = New("Slice", (inner.inputs[0], *slice_inputs(merged)), (node.outputs[0],))
    return Replace((node,), (new,), "two Slices merged", _copy_saved(inner))


def _slice_of_concat(node: gs.Node, joined: gs.Node, cuts: dict[int, Cut]) -> Replace | Skip | None:
    axis = axis_of(joined)
    if axis is None or axis not in cuts:
        return None
    found = _part(joined, axis, cuts[axis])
    if found is None:
        return Skip(
            f"this Slice takes from several inputs of {label(joined)!r}, or of unknown size"
        )
    part, cut = found
    new = New("Slice", (part, *slice_inputs({**cuts, axis: cut})), (node.outputs[0],))
    return Replace((node,), (new,), "Slice reads one input of Concat", _copy_saved(joined))


def _part(joined: gs.Node, axis: int, cut: Cut) -> tuple[gs.Tensor, Cut] | None:
    """The input of the Concat that the cut lies in, and the cut counted from its start."""
    offset = 0
    for index, part in enumerate(joined.inputs):
        length = size(part, axis)
        last = index == len(joined.inputs) - 1  # by place: one value may be joined twice
        end = None if length is None else offset + length
        # what runs to the end, or beyond a length that isn't known, runs to the end of the last
        inside = last if end is None or cut.stop is None else cut.start < cut.stop <= end
        if inside and offset <= cut.start:
            stop = None if cut.stop is None else cut.stop - offset
            return part, Cut(cut.start - offset, stop, cut.step)
        if end is None:
            return None
        offset = end
    return None


def _split(node: gs.Node) -> Replace | Skip | None:
    if len(node.outputs) == 1:
        return _bypass(node, [(node.outputs[0], node.inputs[0])], "Split into one part")
    joined = producer(node.inputs[0])
    if joined is None or joined.op != "Concat":
        return None
    axis = axis_of(joined)
    if axis is None or axis != axis_of(node):
        return None
    parts = _parts(node, axis)
    if parts != [size(value, axis) for value in joined.inputs]:
        return Skip(f"Split doesn't cut where {label(joined)!r} joins, or sizes are unknown")
    pairs = list(zip(node.outputs, joined.inputs, strict=True))
    return _bypass(node, pairs, "Split of Concat into the same parts")


def _parts(node: gs.Node, axis: int) -> list[int | None] | None:
    """How much of the axis each output gets; None when one of them is unknown."""
    written = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    sizes = [size(value, axis) for value in node.outputs]
    if written is not None:
        sizes = [int(length) for length in written]
    return None if None in sizes else sizes


def _concat(node: gs.Node) -> Replace | Skip | None:
    if len(node.inputs) == 1:
        return _bypass(node, [(node.outputs[0], node.inputs[0])], "Concat of one input")
    split = producer(node.inputs[0])
    if split is not None and split.op == "Split" and axis_of(split) == axis_of(node) is not None:
        same = [a is b for a, b in zip(node.inputs, split.outputs, strict=False)]
        if len(node.inputs) == len(split.outputs) and all(same):
            return _bypass(node, [(node.outputs[0], split.inputs[0])], "Concat of a whole Split")
        if all(producer(value) is split for value in node.inputs):
            return Skip(f"Concat joins only some parts of {label(split)!r}, or in another order")
    return _concat_of_concat(node)


def _concat_of_concat(node: gs.Node) -> Replace | Skip | None:
    fronts = [producer(value) for value in node.inputs]
    inner = next((n for n in fronts if n is not None and n.op == "Concat"), None)
    if inner is None or axis_of(inner) is None or axis_of(inner) != axis_of(node):
        return None
    value = inner.outputs[0]
    inputs = [p for v in node.inputs for p in (inner.inputs if v is value else [v])]
    new = New("Concat", tuple(inputs), (node.outputs[0],), node.attrs)
    saved = 2 * (elements(value) or 0) * itemsize(value)
    return Replace((inner, node), (new,), "two Concats merged", saved)


def _copy_saved(front: gs.Node) -> int:
    """What the copy in front read and wrote, if nobody is left who reads it."""
    value = front.outputs[0]
    return 2 * (elements(value) or 0) * itemsize(value) if len(value.outputs) == 1 else 0


def _bypass(node: gs.Node, pairs: Sequence[tuple[gs.Tensor, gs.Tensor]], reason: str) -> Replace:
    """The readers of each first value read the second instead; where only the model's outputs do,
    an Identity keeps the name."""
    sources = {id(old): new for old, new in pairs}
    readers = {id(reader): reader for old, _ in pairs for reader in old.outputs}
    kept = [New("Identity", (new,), (old,)) for old, new in pairs if not old.outputs]
    read = [
        New(
            reader.op,
            tuple(sources.get(id(value), value) for value in reader.inputs),
            tuple(reader.outputs),
            reader.attrs,
            reader.domain,
        )
        for reader in readers.values()
    ]
    moved = sum((elements(old) or 0) * itemsize(old) for old, _ in pairs)
    return Replace((node, *readers.values()), (*kept, *read), reason, 2 * moved)
