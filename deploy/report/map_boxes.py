"""Which nodes of the graph are drawn as one box, so that a picture of hundreds stays legible."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

MULTIPLY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# one input, one output, no weights: every compiler computes it as it writes the layer in front
ACTIVATIONS = (
    *("Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Selu"),
    *("Gelu", "Mish", "Swish", "Softplus"),
)


def boxes(
    nodes: Sequence[Mapping[str, Any]],
    edges: Sequence[tuple[int, int]],
    outputs: Collection[int],
) -> list[list[int]]:
    """Every node in exactly one box, boxes and the nodes in them in the graph's order.

    Joined are runs of what only moves data, what the vendor runs in one kernel, and, where it
    doesn't tell, an activation with the layer in front. A node joins its reader only where that is
    its one reader, so no box can come to stand both before and behind another.
    """
    readers: list[list[int]] = [[] for _ in nodes]
    for source, target in edges:
        readers[source].append(target)
    box = list(range(len(nodes)))
    # the graph is in topological order: a writer's box is final before its readers are looked at
    for source, found in enumerate(readers):
        if len(found) == 1 and source not in outputs and _one(nodes[source], nodes[found[0]]):
            _join(box, source, found[0])
    members: dict[int, list[int]] = {}
    for index in range(len(nodes)):
        members.setdefault(_root(box, index), []).append(index)
    return sorted(members.values())


def _one(source: Mapping[str, Any], target: Mapping[str, Any]) -> bool:
    moving = source["type"] == "moves", target["type"] == "moves"
    if any(moving):
        return all(moving)
    first, second = source["kernel"], target["kernel"]
    if first is not None and second is not None:
        return bool(first["name"] == second["name"])
    joined = source["operator"] in MULTIPLY and target["operator"] in ACTIVATIONS
    return joined and first is None and second is None


def _root(box: list[int], index: int) -> int:
    while box[index] != index:
        index = box[index]
    return index


def _join(box: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(box, one), _root(box, other)))
    box[second] = first
