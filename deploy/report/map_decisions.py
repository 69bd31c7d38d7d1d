"""Which node of the final graph a decision is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.artifacts.model import Model

# a node as ONNX stores it
Node = Any


def owners(stages: Mapping[str, Model], exact: Model) -> dict[str, int]:
    """Name of a node or tensor of any stage -> index of the node of `exact` that it became.

    A tensor belongs to the node that writes it, a weight to the one that reads it. A node that is
    gone belongs to whoever now writes its output, else to the nearest reader that is still there.
    """
    found: dict[str, int] = {}
    nodes = list(exact.proto.graph.node)
    for index, node in enumerate(nodes):
        for name in node.input:
            found.setdefault(name, index)
    for index, node in enumerate(nodes):
        found.update(dict.fromkeys((n for n in node.output if n), index))
    written = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    for model in stages.values():
        before = list(model.proto.graph.node)
        readers = _readers(before)
        for node in before:
            at = _became(node, written, readers)
            if at is not None:
                for name in (name_of(node), *node.output):
                    found.setdefault(name, at)
    # a node's own name comes before a tensor of that name
    return found | {name_of(node): index for index, node in enumerate(nodes)}


def name_of(node: Node) -> str:
    """As `deploy.surgery.graph.label` names it in decisions."""
    return str(node.name or f"{node.op_type} -> {node.output[0] if node.output else '?'}")


def _became(
    node: Node,
    written: Mapping[str, int],
    readers: Mapping[str, Sequence[Node]],
) -> int | None:
    """The node that writes what this one wrote, or the nearest that comes after it."""
    waiting, seen = [node], set()
    for now in waiting:  # grows while it is walked, nearest first
        for name in now.output:
            if name in written:
                return written[name]
            if name not in seen:
                seen.add(name)
                waiting += readers.get(name, ())
    return None


def _readers(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found
