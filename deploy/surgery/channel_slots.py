"""Channels that must share one factor, found by joining ties: the bookkeeping of channel scales."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.channel_layers import Layer
from deploy.surgery.channels import channel_count


@dataclass(frozen=True)
class Bound:
    """A Clip's output channels: values in it must stay inside [low, high] to keep a factor."""

    tensor: gs.Tensor
    slots: np.ndarray
    low: float
    high: float


@dataclass
class ChannelScales:
    """The slots of a graph; slots are numbered 0..count-1.

    of: per tensor name, the slot of every channel. pinned: why a slot's factor is 1, by number.
    makers, readers: the layers that absorb factors. offsets: constants added to a tensor.
    """

    count: int
    of: dict[str, np.ndarray]
    pinned: dict[int, str]
    makers: list[Layer]
    readers: list[Layer]
    offsets: list[Layer]
    bounds: list[Bound]


@dataclass
class Slots:
    """A graph half explored: slots by channel, and which of them turned out to be one."""

    count: int = 0
    of: dict[str, np.ndarray] = field(default_factory=dict)
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    reasons: list[tuple[np.ndarray, str]] = field(default_factory=list)
    makers: list[Layer] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)
    offsets: list[Layer] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)

    def fresh(self, tensor: gs.Tensor) -> np.ndarray | None:
        """New slots for a tensor's channels; None where their number is unknown."""
        count = channel_count(tensor)
        if count is None or count < 1:
            return None
        self.of[tensor.name] = np.arange(self.count, self.count + count)
        self.count += count
        return self.of[tensor.name]

    def outside(self, tensors: Iterable[gs.Tensor], reason: str) -> None:
        """New slots that stay at factor 1."""
        for tensor in tensors:
            if self.fresh(tensor) is not None:
                self.pin([tensor], reason)

    def pin(self, tensors: Iterable[gs.Tensor], reason: str) -> None:
        """Leave the slots of these tensors, as far as they have any, at factor 1."""
        for tensor in tensors:
            if tensor.name in self.of:
                self.reasons.append((self.of[tensor.name], reason))

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        """Channel i of one side and of the other share a factor."""
        self.ties.append((left, right))

    def merged(self) -> ChannelScales:
        """What is tied numbered as one slot."""
        number = self._joined()
        pinned: dict[int, str] = {}
        for slots, reason in self.reasons:
            for slot in number[slots].tolist():
                pinned.setdefault(slot, reason)
        return ChannelScales(
            int(number.max(initial=-1)) + 1,
            {name: number[slots] for name, slots in self.of.items()},
            pinned,
            [Layer(e.node, number[e.slots]) for e in self.makers],
            [Layer(e.node, number[e.slots]) for e in self.readers],
            [Layer(e.node, number[e.slots]) for e in self.offsets],
            [Bound(b.tensor, number[b.slots], b.low, b.high) for b in self.bounds],
        )

    def _joined(self) -> np.ndarray:
        """int64[count]: the number of every slot's group; the lowest slot leads each."""
        root = np.arange(self.count)
        pairs = [np.stack(pair) for pair in self.ties]
        edges = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)
        while True:
            before = root.copy()
            low = np.minimum(root[edges[0]], root[edges[1]])
            for end in edges:
                np.minimum.at(root, before[end], low)
            root = root[root]
            if np.array_equal(root, before):
                break
        return np.unique(root, return_inverse=True)[1].reshape(-1)
