"""Where axis 1 of a tensor stays the channels: what flattens maps, and what stands around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.channels import channel_count, moved_channels, shuffle_of
from deploy.surgery.graph import constant, is_output


def flattened(node: gs.Node) -> int | None:
    """How often each channel is repeated where a map [N, C, ...] becomes [N, C * pixels], or lays
    its pixels out in other axes; None for any other node."""
    if node.op not in ("Flatten", "Reshape", "Squeeze", "Unsqueeze"):
        return None
    source, out = node.inputs[0], node.outputs[0]
    before, after = channel_count(source), channel_count(out)
    if before is None or after is None or not _same_batch(node, source.shape, out.shape):
        return None
    space, laid = _pixels(source.shape), _pixels(out.shape)
    if space is None or laid is None:
        return None
    if after == before and space == laid:
        return 1
    return space if laid == 1 and after == before * space else None


def starts_shuffle(node: gs.Node) -> bool:
    """Whether a node is inside a channel shuffle, which is known by its last Reshape."""
    if node.op not in ("Reshape", "Transpose") or not _read_once(node.outputs[0]):
        return False
    last = node.outputs[0].outputs[0]
    if last.op == "Transpose" and _read_once(last.outputs[0]):
        last = last.outputs[0].outputs[0]
    chain = shuffle_of(last)
    inside = chain is not None and any(node is n for n in chain[:2])
    return inside and moved_channels(last) is not None


def keeps_rank(node: gs.Node) -> bool:
    """Whether the output and all inputs that vary have one rank, so that axis 1 is one axis; of
    constants, whether broadcasting adds no axis."""
    ranks = [len(v.shape or ()) for v in node.inputs if constant(v) is None and not v.is_empty()]
    return set(ranks) == {len(node.outputs[0].shape or ())}


def read_by_bodies(node: gs.Node) -> Iterator[gs.Tensor]:
    """Every tensor the bodies of an If, Loop or Scan mention, those from outside among them."""
    for body in node.subgraphs():
        yield from body.outputs
        for inner in body.nodes:
            yield from inner.inputs
            yield from read_by_bodies(inner)


def _same_batch(node: gs.Node, before: Sequence[object], after: Sequence[object]) -> bool:
    if node.op == "Flatten":
        return int(node.attrs.get("axis", 1)) == 1
    free = [not isinstance(shape[0], int) for shape in (before, after)]
    return all(free) or before[0] == after[0]


def _pixels(shape: Sequence[object]) -> int | None:
    """Elements per channel; None where a size is unknown."""
    sizes = [size for size in shape[2:] if isinstance(size, int) and size > 0]
    return int(np.prod(sizes)) if len(sizes) == len(shape) - 2 else None


def _read_once(tensor: gs.Tensor) -> bool:
    return len(tensor.outputs) == 1 and not is_output(tensor)
