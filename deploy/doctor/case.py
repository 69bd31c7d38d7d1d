"""What every rule of `deploy doctor` looks at, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import onnx
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision, Model
from deploy.nvidia.settings import Nvidia
from deploy.surgery.graph import label
from deploy.target import Precision, Target

# stop: no engine comes of it. warning: one does, and something about it may surprise.
Level = Literal["stop", "warning", "note"]
_LIBRARIES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """One thing about a model on a target, in a sentence. where: nodes or tensors it is about."""

    rule: str
    level: Level
    text: str
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A model on its way to a target, before anything is calibrated.

    raw: the file as it is. fused: after the target's fusions; graph: the same linked, in the
    opset the device reads where that can be written. obstacle: why it can't. lowered_from: its
    opset before, 0 where it didn't change. decisions: what fuse did, and declined. widened: what
    became of a float type that integers can't be made from.
    """

    target: Target
    precision: Precision
    raw: onnx.ModelProto
    loaded: Model
    fused: Model
    graph: gs.Graph
    obstacle: str = ""
    lowered_from: int = 0
    decisions: tuple[Decision, ...] = field(default=())
    widened: tuple[Decision, ...] = field(default=())

    @property
    def nvidia(self) -> Nvidia | None:
        """What TensorRT builds with; None for other vendors."""
        return self.target.engine.nvidia

    @property
    def nodes(self) -> list[gs.Node]:
        """All nodes, those in bodies of If, Loop and Scan included."""
        return list(_walk(self.graph))

    def library(self, version: str = "") -> str:
        """The vendor's library and its release, in words."""
        if self.nvidia is None:
            return "OpenVINO"
        return f"{_LIBRARIES[self.nvidia.library]} {version or self.nvidia.versions[0]}"


def _walk(graph: gs.Graph) -> Iterator[gs.Node]:
    for node in graph.nodes:
        yield node
        for body in node.subgraphs():
            yield from _walk(body)


def labels(nodes: Iterable[gs.Node]) -> tuple[str, ...]:
    """The nodes as they are called."""
    return tuple(label(node) for node in nodes)


def some(names: Iterable[str], most: int = _NAMED) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def counted(operators: Iterable[str]) -> str:
    """`Add 3, Mul 1`, the most frequent first."""
    counts: dict[str, int] = {}
    for operator in operators:
        counts[operator] = counts.get(operator, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered)
