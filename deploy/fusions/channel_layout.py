"""A channel shuffle costs nothing: weights are permuted instead of data.

    Conv -> Concat -> shuffle -> Split -> Conv   =>   Conv' -> Split -> Concat -> Conv'

Concat, Split, Slice, Gather on the channel axis and channel shuffles only say which channel is
where. The rule follows the channels through them, and through nodes that work on each channel
alone (depthwise convs, BatchNormalization, activations, pooling), to the dense layers that read
them. Each layer in front then stores its channels in the order in which they are used, so that
every reader finds its own in few contiguous stretches: one Split per value, one Concat per reader,
no shuffle. Dense layers take any order with their weights permuted to match; exact readers (grouped
convs, Adds, outputs) get the original order back, if that is cheaper than the shuffle was.

It pays because a shuffle reads and writes the whole map and computes nothing: on ShuffleNetV2 half
of the time.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.channel_orders import Piece, choose_orders, in_stored_order, pieces
from deploy.surgery.channel_plan import Region, explore
from deploy.surgery.channels import moved_channels, shuffle_of, with_channels, worked_inputs
from deploy.surgery.graph import constant, elements
from deploy.surgery.rewrite import New, Replace, Skip

# beyond this a vendor's graph of tiny slices is no gain, whatever the bytes say
_MOST_PIECES = 512


def channel_layout(node: gs.Node) -> Replace | Skip | None:
    """Absorb this shuffle, and all of its region with it, into the layers around."""
    if not _is_shuffle(node):
        return None
    region = explore(node)
    if region.problem is not None:
        return Skip(region.problem)
    if not region.free_readers and all(value.fixed for value in region.values):
        return Skip("no dense layer next to it could take its channels in another order")
    choose_orders(region)
    built = _Builder(region)
    if built.count > _MOST_PIECES:
        return Skip(f"its readers would need {built.count} slices")
    before, after = _bytes_moved(region), built.bytes_moved()
    if after >= before:
        return Skip(
            "in the best order found, Split and Concat for its readers would still move "
            f"{after} bytes, no less than the {before} moved now"
        )
    removed, added = built.nodes()
    shuffles = sum(_is_shuffle(mover) for mover in region.movers)
    reason = f"{shuffles} shuffle{'s' if shuffles > 1 else ''} absorbed into permuted weights"
    return Replace(tuple(removed), tuple(added), reason, before - after)


def _is_shuffle(node: gs.Node) -> bool:
    """Whether a node brings channels out of order: what makes a region worth planning."""
    moved = moved_channels(node)
    return moved is not None and any(len(c) > 1 and (np.diff(c) != 1).any() for c in moved)


def _bytes_moved(region: Region) -> int:
    """What the region's movers read and write now, per sample."""
    total = 0
    for node in region.movers:
        if node.op == "Identity":
            continue
        written = sum(_bytes(tensor) for tensor in node.outputs)
        total += 2 * written
    return total


def _bytes(tensor: gs.Tensor) -> int:
    return (elements(tensor) or 0) * np.dtype(tensor.dtype or np.float32).itemsize


class _Builder:
    """The nodes of a planned region."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.free: list[tuple[gs.Node, np.ndarray, list[Piece]]] = []
        for reader, atoms in region.free_readers:
            order = in_stored_order(region, atoms)
            self.free.append((reader, order, pieces(region, [atoms[i] for i in order])))
        stored = {id(value.tensor) for value in region.values}
        self.fixed = [
            (tensor, pieces(region, atoms))
            for tensor, atoms in region.fixed_readers
            if id(tensor) not in stored
        ]
        self.work = {
            index: [
                pieces(region, [atoms[c] for c in region.values[index].order]) for atoms in needs
            ]
            for index, needs in region.worker_needs.items()
        }
        self.cuts = self._cuts()
        self.stored = {i: self._stored(i) for i in range(len(region.values))}
        self.parts: dict[Piece, gs.Tensor] = {}
        self.joined: dict[tuple[Piece, ...], gs.Tensor] = {}
        self.added: list[New] = []

    @property
    def count(self) -> int:
        """How many slices all readers need together."""
        return sum(len(found) for found in self._all())

    def bytes_moved(self) -> int:
        """What the Splits and Concats of the plan read and write, per sample."""
        splits = sum(
            2 * _bytes(self.region.values[v].tensor)
            for v, cuts in self.cuts.items()
            if len(cuts) > 2
        )
        needs = {tuple(found) for found in self._all() if len(found) > 1}
        return splits + sum(2 * sum(self._size(p) for p in found) for found in needs)

    def nodes(self) -> tuple[list[gs.Node], list[New]]:
        """The nodes to take out and those to put in."""
        removed = {id(n): n for m in self.region.movers for n in (shuffle_of(m) or (m,))}
        makers = self._makers()
        for reader, order, found in self.free:
            data, made = self._join(found), makers.pop(id(reader), None)
            if data is reader.inputs[0] and made is None:
                continue
            removed[id(reader)] = reader
            self._layer(reader, order, data, made)
        for node, index in makers.values():
            removed[id(node)] = node
            self._layer(node, None, node.inputs[0], (node, index))
        for index, needs in self.work.items():
            node = self.region.values[index].maker
            assert node is not None
            data_in = [self._join(found) for found in needs]
            moved = self.stored[index] is not node.outputs[0]
            if moved or any(
                new is not old for new, old in zip(data_in, worked_inputs(node), strict=True)
            ):
                removed[id(node)] = node
                self._worker(node, index, data_in)
        for tensor, found in self.fixed:
            self._restore(tensor, found)
        return list(removed.values()), self.added

    def _all(self) -> list[list[Piece]]:
        free = [found for _, _, found in self.free]
        worked = [found for needs in self.work.values() for found in needs]
        return [*free, *(found for _, found in self.fixed), *worked]

    def _size(self, piece: Piece) -> int:
        value = self.region.values[piece.value]
        return _bytes(value.tensor) * (piece.stop - piece.start) // max(value.count, 1)

    def _cuts(self) -> dict[int, list[int]]:
        """Per value, where its one Split cuts; [0, count] for none."""
        cuts = {i: {0, value.count} for i, value in enumerate(self.region.values)}
        for found in self._all():
            for piece in found:
                cuts[piece.value] |= {piece.start, piece.stop}
        return {v: sorted(points) for v, points in cuts.items()}

    def _stored(self, index: int) -> gs.Tensor:
        """The tensor a value lives in: its own while its order is, else a new one."""
        value = self.region.values[index]
        if np.array_equal(value.order, np.arange(value.count)):
            return value.tensor
        return gs.Variable("", value.tensor.dtype, value.tensor.shape)

    def _makers(self) -> dict[int, tuple[gs.Node, int]]:
        """Layers in front of the region whose outputs change their order."""
        changed = {}
        for index, value in enumerate(self.region.values):
            if value.maker is None and self.stored[index] is not value.tensor:
                node = value.tensor.inputs[0]
                changed[id(node)] = (node, index)
        return changed

    def _layer(
        self,
        node: gs.Node,
        order: np.ndarray | None,
        data: gs.Tensor,
        made: tuple[gs.Node, int] | None,
    ) -> None:
        """A dense layer with its input and output channels in the new orders."""
        weights = np.asarray(constant(node.inputs[1]))
        across = 1 if node.op == "Conv" or node.attrs.get("transB", 0) else 0
        if order is not None:
            weights = np.take(weights, order, across)
        bias = list(node.inputs[2:])
        out = node.outputs[0]
        if made is not None:
            rows = self.region.values[made[1]].order
            weights, out = np.take(weights, rows, 0), self.stored[made[1]]
            bias = [v if v.is_empty() else np.asarray(constant(v))[rows] for v in bias]
        inputs = (data, np.ascontiguousarray(weights), *bias)
        self.added.append(New(node.op, inputs, (out,), node.attrs))

    def _worker(self, node: gs.Node, index: int, data: list[gs.Tensor]) -> None:
        inputs = (*data, *with_channels(node, self.region.values[index].order))
        self.added.append(New(node.op, inputs, (self.stored[index],), node.attrs))

    def _restore(self, tensor: gs.Tensor, found: list[Piece]) -> None:
        """A value that an exact reader wants, under its own name."""
        parts = self._parts(found)
        op = "Concat" if len(parts) > 1 else "Identity"
        attrs = {"axis": 1} if len(parts) > 1 else {}
        self.added.append(New(op, tuple(parts), (tensor,), attrs))

    def _join(self, found: list[Piece]) -> gs.Tensor:
        parts = self._parts(found)
        if len(parts) == 1:
            return parts[0]
        key = tuple(found)
        if key not in self.joined:
            like = self.region.values[found[0].value].tensor
            count = sum(piece.stop - piece.start for piece in found)
            self.joined[key] = _sized(like, count)
            self.added.append(New("Concat", tuple(parts), (self.joined[key],), {"axis": 1}))
        return self.joined[key]

    def _parts(self, found: list[Piece]) -> list[gs.Tensor]:
        parts: list[gs.Tensor] = []
        for piece in found:
            value, cuts = self.region.values[piece.value], self.cuts[piece.value]
            if piece.stop - piece.start == value.count:
                parts.append(self.stored[piece.value])
                continue
            inner = [c for c in cuts if piece.start <= c <= piece.stop]
            for start, stop in pairwise(inner):
                parts.append(self._part(Piece(piece.value, start, stop)))
        return parts

    def _part(self, wanted: Piece) -> gs.Tensor:
        if wanted not in self.parts:
            value, cuts = self.region.values[wanted.value], self.cuts[wanted.value]
            whole = self.stored[wanted.value]
            sizes = np.diff(np.asarray(cuts, np.int64))
            outputs = tuple(_sized(value.tensor, int(size)) for size in sizes)
            for (start, stop), out in zip(pairwise(cuts), outputs, strict=True):
                self.parts[Piece(wanted.value, start, stop)] = out
            self.added.append(New("Split", (whole, sizes), outputs, {"axis": 1}))
        return self.parts[wanted]


def _sized(like: gs.Tensor, channels: int) -> gs.Variable:
    """A fresh value like another, with so many channels."""
    shape = None if like.shape is None else [like.shape[0], channels, *like.shape[2:]]
    return gs.Variable("", like.dtype, shape)
