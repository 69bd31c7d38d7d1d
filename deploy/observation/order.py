"""Where in an observed graph the nodes stand that reduce its tensors, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx


@dataclass
class Joint:
    """Pooled values being joined along the channels: the output's name, the nodes of the first
    tensor, what is joined."""

    out: str
    nodes: list[onnx.NodeProto]
    names: list[str] = field(default_factory=list)
    channels: int = 0


def as_made(graph: onnx.GraphProto, tensors: Sequence[str]) -> list[int]:
    """The indices of the tensors in the order in which the graph makes them, inputs first."""
    place = {o: i for i, node in enumerate(graph.node) for o in node.output}
    return sorted(range(len(tensors)), key=lambda i: place.get(tensors[i], -1))


def in_order(
    graph: onnx.GraphProto, added: Sequence[tuple[str, list[onnx.NodeProto]]]
) -> list[onnx.NodeProto]:
    """All nodes, so that each tensor is reduced as soon as it is there, while the cache holds it.

    added: tensors as the graph makes them, each with the nodes that reduce it. The engine runs the
    ready node that comes first in the graph, so what reduces a tensor follows the node that makes
    it. But ONNX Runtime numbers convolutions and pools anew as it gives them its layout, in an
    order found by walking up from the last node of the list that nobody reads: with convolutions
    what is added stands at the end, the first tensor's last.
    """
    if any(node.op_type == "Conv" for node in graph.node):
        return [*graph.node, *(node for _, nodes in reversed(added) for node in nodes)]
    place = {o: i for i, node in enumerate(graph.node) for o in node.output}
    after: dict[int, list[onnx.NodeProto]] = {}
    for tensor, nodes in added:
        after.setdefault(place.get(tensor, -1), []).extend(nodes)
    ordered = list(after.get(-1, []))
    for i, node in enumerate(graph.node):
        ordered += [node, *after.get(i, [])]
    return ordered
