"""Where two graphs that ought to give equal values part: the node, or the smallest part that fails.

Tensors of one name needn't hold equal values: fusions permute channels and equalization scales
them, on purpose, and take it back further down. So a tensor that differs is no fault by itself. A
place between two nodes is *before* the fault where all that is carried over it is equal, and
*behind* it where the second graph, given the first one's values there, gives the first one's values
again further down. The fault lies between the last place before and the first one behind it. Where
the whole graph is scaled there is none behind; the fault is then where values stop being the other
graph's with channels scaled, shifted or in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from deploy.artifacts.ladder import Culprit
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.errors import BuildError
from deploy.ladder.tensors import (
    AS_IS,
    Difference,
    Feeding,
    Held,
    Values,
    common,
    differences,
)
from deploy.surgery.spans import Spans

# nodes that are run on from a place, to see whether values come right again
_AHEAD = 60
_WEIGH = ("Conv", "ConvTranspose", "Gemm", "MatMul", "ConvInteger", "QLinearConv")
# places behind the last sound one that are tried: each runs a stretch of the graph
_MOST_PLACES = 16
# values of a channel, below which any of them fit a scale and a shift
_ENOUGH = 6


@dataclass(frozen=True)
class Pair:
    """Two graphs over the same runs, every tensor looked at.

    names: the tensors of both, in the order of `candidate`. before, after: per run, what all
    tensors of each hold.
    """

    exact: Model
    candidate: Model
    runs: Sequence[Values]
    counts: Sequence[int]
    names: Sequence[str]
    before: Sequence[Values]
    after: Sequence[Values]
    feeding: Feeding = AS_IS

    @classmethod
    def of(
        cls,
        exact: Model,
        candidate: Model,
        runs: Sequence[tuple[Values, int]],
        feeding: Feeding = AS_IS,
        held: Held | None = None,
    ) -> Pair:
        """Both have to be `observable`. held: what graphs hold on these very runs, if kept."""
        feeds = [feed for feed, _ in runs]
        looked = held or Held(feeds, feeding)
        before, after = looked.of(exact), looked.of(candidate)
        counts = [count for _, count in runs]
        names = common(exact, candidate)
        return cls(exact, candidate, feeds, counts, names, before, after, feeding)

    @cached_property
    def off(self) -> dict[str, Difference]:
        """Every common tensor's, each graph run by itself."""
        return differences(self.before, self.after, self.names, self.counts)


def first_fault(pair: Pair, least_db: float) -> Culprit | None:
    """The first part of `candidate` that fails; None where every output reaches `least_db`."""
    outputs = [spec.name for spec in pair.candidate.outputs]
    if all(pair.off[name].sqnr_db >= least_db for name in outputs if name in pair.off):
        return None
    return _Search(pair, least_db).culprit()


class _Search:
    def __init__(self, pair: Pair, least_db: float) -> None:
        self.pair, self.least_db, self.off = pair, least_db, pair.off
        self.spans = Spans(pair.candidate)
        self.nodes = list(pair.candidate.proto.graph.node)
        self._twins = {n.output[0]: n for n in pair.exact.proto.graph.node if n.output}
        self._weights = tuple(
            {w.name: _bytes(w) for w in m.proto.graph.initializer}
            for m in (pair.candidate, pair.exact)
        )
        # what can be carried over a place: inputs, and equal shapes under one name
        self.inputs = {spec.name for spec in pair.candidate.inputs}
        same = {name for name in pair.names if self.off[name].same_shape}
        self.carried = same | self.inputs
        self.good = self.inputs | {n for n in same if self.off[n].sqnr_db >= least_db}

    def culprit(self) -> Culprit:
        places = [p for p in range(len(self.nodes) + 1) if self._live(p) <= self.carried]
        before = max(
            (p for p in places if self._live(p) <= self.good and self._sound(p)), default=0
        )
        later = [p for p in places if before < p < len(self.nodes)][:_MOST_PLACES]
        behind = next((p for p in later if self._comes_right(p)), None)
        if behind is not None:
            part = self._wrong(before, behind)
            return self._named(self._first(part), part, True)
        part = self._wrong(before, len(self.nodes))
        chosen = next((n for n in part if not self._meant(n)), part[-1])
        part = self._leading_to(chosen, part)
        # nothing can come right behind the last node
        return self._named(self._first(part), part, chosen is self.nodes[-1])

    def _first(self, part: Sequence[onnx.NodeProto]) -> onnx.NodeProto:
        """Of a part that fails the node to look at: the first whose values aren't meant, or, where
        that is as it was in the other graph, the last one in front of it that was changed."""
        wrong = next((n for n in part if not self._meant(n)), part[-1])
        leading = self._leading_to(wrong, part)
        return next((n for n in reversed(leading) if self._changed(n)), wrong)

    def _leading_to(
        self, node: onnx.NodeProto, part: Sequence[onnx.NodeProto]
    ) -> list[onnx.NodeProto]:
        """The nodes of a part that a node depends on, itself included, in the graph's order."""
        wanted, found = set(node.output), []
        for each in reversed(part):
            if wanted & set(each.output):
                found.append(each)
                wanted |= set(each.input)
        return found[::-1]

    def _changed(self, node: onnx.NodeProto) -> bool:
        """Whether the other graph has no such node: operator, attributes, inputs and weights."""
        twin = self._twins.get(node.output[0])
        if twin is None or twin.op_type != node.op_type or list(twin.input) != list(node.input):
            return True
        if sorted(map(_bytes, twin.attribute)) != sorted(map(_bytes, node.attribute)):
            return True
        mine, theirs = self._weights
        return any(mine.get(name) != theirs.get(name) for name in node.input)

    def _wrong(self, start: int, stop: int) -> list[onnx.NodeProto]:
        """The nodes between two places whose results differ; all of them where none has a twin."""
        nodes = self.nodes[start:stop]
        part = [n for n in nodes if not all(o in self.good for o in n.output if o)]
        return part or nodes

    def _live(self, place: int) -> set[str]:
        return set(self.spans.live(place))

    def _sound(self, place: int) -> bool:
        """Whether no output was wrong before the place."""
        made = {name for node in self.nodes[:place] for name in node.output}
        outputs = {spec.name for spec in self.pair.candidate.outputs}
        return all(name in self.good for name in outputs & made if name in self.off)

    def _comes_right(self, place: int) -> bool:
        """Whether the candidate, given the right values here, has the right ones further down."""
        stop = min(place + _AHEAD, len(self.nodes))
        made = {name for node in self.nodes[place:stop] for name in node.output}
        wanted = [name for name in self.pair.names if name in made and name in self.carried]
        if not wanted:
            return False
        got = self._run(place, stop, wanted)
        if got is None:
            return False
        right = {
            name
            for name, error in differences(self.pair.before, got, wanted, self.pair.counts).items()
            if error.sqnr_db >= self.least_db
        }
        outputs = {spec.name for spec in self.pair.candidate.outputs}
        weighed = False
        for later in range(place + 1, stop + 1):
            weighed |= self.nodes[later - 1].op_type in _WEIGH
            if later == len(self.nodes):
                return outputs & made & set(wanted) <= right
            if not weighed:
                continue
            live = self._live(later)
            # what was carried over the place itself is given
            own = live & made
            if live <= self.carried and own and own <= right:
                return True
        return False

    def _run(self, place: int, stop: int, wanted: Sequence[str]) -> list[Values] | None:
        piece, takes = self.spans.between(place, stop, wanted)
        found: list[Values] = []
        try:
            with reference.ReferenceEngine(piece, threads=1, exact=True) as engine:
                for feeds, held in zip(self.pair.runs, self.pair.before, strict=False):
                    fed = self.pair.feeding.of(self.pair.candidate, feeds)
                    given = {n: fed[n] if n in fed else held[n] for n in takes}
                    found.append(engine.run(given))
        except BuildError:
            # values of another layout, which this part can't take
            return None
        return found

    def _named(self, wrong: onnx.NodeProto, part: Sequence[onnx.NodeProto], whole: bool) -> Culprit:
        tensor = next((o for o in wrong.output if o in self.off), wrong.output[0])
        observed_db = self.off[tensor].sqnr_db if tensor in self.off else self._output_db()
        why = self._why(tensor, len(part), whole)
        nodes = tuple(map(called, part))
        return Culprit(called(wrong), wrong.op_type, tensor, observed_db, self.least_db, nodes, why)

    def _meant(self, node: onnx.NodeProto) -> bool:
        """Whether what a node makes may be taken back further down: the same values with channels
        scaled, shifted or permuted, or nothing that could be compared."""
        known = [o for o in node.output if o in self.off and self.off[o].same_shape]
        for tensor in known:
            pairs = zip(self.pair.before, self.pair.after, strict=False)
            before, after = zip(*((b[tensor], a[tensor]) for b, a in pairs), strict=True)
            if not rearranged(before, after, self.least_db):
                return False
        return True

    def _output_db(self) -> float:
        outputs = [spec.name for spec in self.pair.candidate.outputs]
        return min((self.off[n].sqnr_db for n in outputs if n in self.off), default=-200.0)

    def _why(self, tensor: str, count: int, whole: bool) -> str:
        if tensor not in self.off:
            where = "what it makes has no twin to compare with"
        else:
            where = f"{tensor!r} reaches {self.off[tensor].sqnr_db:.1f} dB"
        if not whole:
            return (
                f"{where} and is not the other graph's with channels scaled, shifted or permuted; "
                "all that is carried to these nodes is equal"
            )
        these = "it" if count == 1 else f"these {count} nodes"
        return f"{where}; all in front of {these} is equal, and, given right values, all behind"


def _bytes(message: onnx.TensorProto | onnx.AttributeProto) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def called(node: onnx.NodeProto) -> str:
    """The node's name, or its operator and first output where the exporter gave none."""
    return node.name or f"{node.op_type} -> {node.output[0]}"


def rearranged(before: Sequence[np.ndarray], after: Sequence[np.ndarray], least_db: float) -> bool:
    """Whether the values are those of `before` with each channel scaled and shifted by constants,
    or with the channels in another order; also where there are too few of them to tell.

    Channels lie on axis 1, on the last one, or on 1 and 2 together (a shuffle's groups).
    """
    rank = before[0].ndim
    if rank < 2 or any(x.shape != y.shape for x, y in zip(before, after, strict=True)):
        return False
    if len({x.shape[1:] for x in before}) > 1:
        return True
    places = [(1,), (rank - 1,), *([(1, 2)] if rank > 3 else [])]
    for axes in dict.fromkeys(places):
        x, y = (
            np.concatenate([_channels(part, axes) for part in all_]) for all_ in (before, after)
        )
        if len(x) < _ENOUGH or _fits(x.T, y.T, least_db):
            return True
    return False


def _fits(x: np.ndarray, y: np.ndarray, least_db: float) -> bool:
    """Whether y is x with its rows scaled and shifted, or in another order."""
    allowed = float((y**2).sum()) * 10 ** (-least_db / 10)
    off_x, off_y = (part - part.mean(axis=1, keepdims=True) for part in (x, y))
    spread = (off_x**2).sum(axis=1, keepdims=True)
    slope = (off_x * off_y).sum(axis=1, keepdims=True)
    slope = np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0)
    if float(((off_y - slope * off_x) ** 2).sum()) <= allowed:
        return True
    order_x, order_y = (np.lexsort((p.max(axis=1), p.sum(axis=1))) for p in (x, y))
    return float(((x[order_x] - y[order_y]) ** 2).sum()) <= allowed


def _channels(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """float64[everything else, channels]."""
    moved = np.moveaxis(x.astype(np.float64), axes, range(-len(axes), 0))
    return moved.reshape(-1, int(np.prod([x.shape[a] for a in axes])))
