"""The ladder itself: every graph of a build, the engine and the server, each against the untouched
model on the same few samples, and each against the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from calibrators.samples import Sample
from deploy.artifacts.engine import Engine
from deploy.artifacts.ladder import Culprit, Ladder, OutputLoss, Rung, TensorError
from deploy.artifacts.model import Model, TensorSpec
from deploy.artifacts.ranges import Ranges
from deploy.backends import reference
from deploy.batches import fixed_batch
from deploy.errors import CalibrationError
from deploy.ladder.engine_fault import EngineLook, engine_look
from deploy.ladder.first_fault import Pair, first_fault
from deploy.ladder.losses import between, nearest, worst
from deploy.ladder.noisy_fault import CEILING_DB, NoisyPair
from deploy.ladder.outputs import Outputs, holds_qdq
from deploy.ladder.tensors import (
    Difference,
    Feeding,
    Held,
    Values,
    in_wide_floats,
    makers,
    observable,
    runs_of,
)
from deploy.ladder.unrounded import unrounded
from deploy.rounding_bound import rounding_bound
from deploy.widen import computed_kinds

FEW = 2  # samples whose inner tensors are looked at: more show the same
# what a Clip that equalization scaled may cut off of values that calibration didn't see
_CLIPPED_DB = 30.0
_STORED_DB = 30.0  # a hundred layers that each round to float16, 72 dB, leave about 50
# float round-off is measured; a stage may add so much to it, within these bounds
_SPREAD_DB, _LEAST_DB, _MOST_DB = 30.0, 60.0, 90.0
# a correction takes noise back; by so much it may miss on other samples than its own
_CORRECTION_DB = 5.0
# an answer over the network holds the engine's numbers; JSON may round the last bit
_SERVED_DB = 120.0

# the graphs of a build in their order: name -> the stage that made it
STAGES = {
    "source": "the untouched model",
    "loaded": "load",
    "rawinput": "fold-input",
    "widened": "widen",
    "simplified": "simplify",
    "fused": "fuse",
    "equalized": "equalize",
    "uncorrected": "quantize",
    "quantized": "quantize",
    "compressed": "compress",
    "lowered": "rewrite for the compiler",
}
_QUANTIZED = ("uncorrected", "quantized", "compressed")


@dataclass(frozen=True)
class Shipped:
    """The engine at the end. folder: where its files lie, to be looked into; None: outputs only."""

    engine: Engine
    precision: str
    folder: Path | None = None


@dataclass(frozen=True)
class Way:
    """What a build came by. graphs: some of STAGES, in that order, the first one the truth.

    limits: per output the least SQNR; "" stands for all others. served: sends the feeds of one
    request to the server and returns its outputs. approximate: cheaper activations were asked for.
    """

    graphs: Mapping[str, Model]
    ranges: Ranges | None = None
    shipped: Shipped | None = None
    feeding: Feeding = field(default_factory=Feeding)
    limits: Mapping[str, float] = field(default_factory=dict)
    limits_from: str = "recipe"
    served: Callable[[Values], Values] | None = None
    served_inputs: tuple[TensorSpec, ...] = ()
    approximate: bool = False


def ladder(way: Way, samples: Iterable[Sample], about: str = "") -> Ladder:
    """All rungs on these samples; CalibrationError when there are none."""
    chosen = in_wide_floats(samples)
    if not chosen:
        raise CalibrationError("no samples for the parity ladder; check --eval-data and --data")
    return Ladder(len(chosen), about, tuple(_Climb(way, chosen).rungs()))


class _Climb:
    def __init__(self, way: Way, samples: Sequence[Sample]) -> None:
        self.way, self.samples = way, samples
        self.graphs = {name: observable(way.graphs[name]) for name in STAGES if name in way.graphs}
        self.few = list(samples[:FEW])
        self._noisy: dict[tuple[str, str], NoisyPair] = {}
        self._held: dict[int, Held] = {}
        self.outputs = Outputs(samples, way.feeding)
        (self.first, truth) = next(iter(self.graphs.items()))
        self.truth = self.outputs.of(truth)
        with reference.ReferenceEngine(truth, threads=1, exact=True) as engine:
            self.roundoff_db = worst(between(self.truth, self.outputs.run(engine, FEW)))

    def rungs(self) -> Iterable[Rung]:
        before, held = self.first, self.truth
        yield self.rung(self.first, self.truth, held, (200.0, "the truth"), before)
        for name, model in list(self.graphs.items())[1:]:
            if _same(self.graphs[before], model):
                yield self.rung(name, held, held, (_MOST_DB, "the very same nodes"), before)
                # what is known of the one before holds
                self.graphs[name], before = self.graphs[before], name
                continue
            got = self.outputs.of(model)
            yield self.graph_rung(name, before, got, held)
            before, held = name, got
        shipped = self.way.shipped
        if shipped is None:
            return
        got = self.outputs.run(shipped.engine)
        yield self.engine_rung(shipped, before, got, held)
        if self.way.served is not None:
            yield self.served_rung(got)

    def pair(self, before: Model, after: Model) -> Pair:
        runs = runs_of(before, self.few)
        size = fixed_batch(before.inputs)
        held = self._held.setdefault(size, Held([feeds for feeds, _ in runs], self.way.feeding))
        return Pair.of(before, after, runs, self.way.feeding, held)

    def graph_rung(
        self, name: str, before: str, got: Sequence[Values], held: Sequence[Values]
    ) -> Rung:
        if name in _QUANTIZED:
            return self.noisy_rung(name, got)
        allowed = self.lossless(name)
        own = worst(between(held, got))
        if self.graphs[before].inputs != self.graphs[name].inputs:
            # the tensors in front of a folded input have no twins
            return self.rung(name, got, held, allowed, before)
        if own < allowed[0] and name == "lowered" and holds_qdq(self.graphs[name]):
            return self.lowered_rung(before, got, held)
        pair = self.pair(self.graphs[before], self.graphs[name])
        found = first_fault(pair, allowed[0]) if own < allowed[0] else None
        culprits = (found,) if found is not None else ()
        return self.rung(
            name, got, held, allowed, before, culprits, _rows(pair.off, pair.candidate)
        )

    def lowered_rung(self, before: str, got: Sequence[Values], held: Sequence[Values]) -> Rung:
        """Round-off takes single values to the next step, and a deep network amplifies that: judged
        without rounding, and with it by what a step of every value may cost."""
        rewritten = [self.graphs[before], self.graphs["lowered"]]
        pair, own = self.pair(*rewritten), worst(between(held, got))
        bound = min(rounding_bound(rewritten[0], self.few).values())
        allowed = bound, "the next step may cost so much"
        smooth = [observable(m) for m in map(unrounded, rewritten) if m is not None]
        if len(smooth) == 2:
            exact, least = worst(between(*map(self.outputs.of, smooth))), self.lossless("lowered")
            allowed = bound, f"{exact:.0f} dB without rounding, and the next step may cost so much"
            if exact < least[0]:
                pair, allowed, own = self.pair(*smooth), least, exact
        found = first_fault(pair, allowed[0]) if own < allowed[0] else None
        rows = _rows(pair.off, pair.candidate)
        culprits = (found,) if found is not None else ()
        return self.rung("lowered", got, held, allowed, before, culprits, rows, own_db=own)

    def lossless(self, name: str) -> tuple[float, str]:
        """What a stage that changes no value reaches at least, and how that is known."""
        measured = self.roundoff_db
        least = float(np.clip(measured - _SPREAD_DB, _LEAST_DB, _MOST_DB))
        why = f"float round-off, {measured:.0f} dB when the untouched model is run in another order"
        if name == "widened" and computed_kinds(self.graphs[self.first]):
            return _STORED_DB, "the model rounds what its layers give to a smaller type"
        if name == "lowered" and self.way.approximate:
            return -200.0, "cheaper activations were asked for: their loss is the gates' to judge"
        clips = any(n.op_type == "Clip" for n in self.graphs[name].proto.graph.node)
        if name == "equalized" and clips:
            return _CLIPPED_DB, "a scaled Clip may cut off values that calibration did not see"
        return least, why

    def noisy_rung(self, name: str, got: Sequence[Values]) -> Rung:
        exact = next(n for n in ("equalized", "fused", self.first) if n in self.graphs)
        held = self.outputs.of(self.graphs[exact])
        noisy = self.noisy(exact, name)
        found = {n: one.sqnr_db for n, one in between(held, got).items()}
        predicted = self.predicted(noisy)
        margin = noisy.output_margin_db
        own, allowed = nearest(found, {n: db - margin for n, db in predicted.items()})
        why = f"rounding every value and weight leaves about {allowed + margin:.1f} dB, predicted"
        if name == "quantized" and "uncorrected" in self.graphs:
            plain = self.noisy(exact, "uncorrected")
            without = between(held, self.outputs.of(self.graphs["uncorrected"]))
            least = {n: min(one.sqnr_db, CEILING_DB) for n, one in without.items()}
            own_db, least_db = nearest(found, {n: db - _CORRECTION_DB for n, db in least.items()})
            if plain.culprits(only_rounded=True) or least_db - own_db > allowed - own:
                own, allowed = own_db, least_db
                why = f"a correction must not lose: {least_db + _CORRECTION_DB:.1f} dB without it"
            # A correction mends a layer for the inputs it gets, which aren't the right ones: being
            # off out of right ones is no fault as long as no output lost.
            culprits = noisy.worse_than(plain) if own < allowed else ()
        else:
            culprits = noisy.culprits(lost=own < allowed, only_rounded=name == "uncorrected")
        tensors = _rows(noisy.local, noisy.pair.candidate)
        return self.rung(name, got, held, (allowed, why), exact, culprits, tensors, own_db=own)

    def predicted(self, noisy: NoisyPair) -> dict[str, float]:
        """What sound rounding leaves of each output, over all samples."""
        if noisy.rounded is None:
            return {}
        right, rounded = self.outputs.of(noisy.pair.exact), self.outputs.of(noisy.rounded)
        return {n: min(d.sqnr_db, CEILING_DB) for n, d in between(right, rounded).items()}

    def noisy(self, exact: str, name: str) -> NoisyPair:
        """A Q/DQ graph beside the float one it was made from."""
        if (exact, name) not in self._noisy:
            self._noisy[exact, name] = self.noisy_pair(exact, name)
        return self._noisy[exact, name]

    def noisy_pair(self, exact: str, name: str) -> NoisyPair:
        pair = self.pair(self.graphs[exact], self.graphs[name])
        like = self._noisy.get((exact, "uncorrected")) if name == "quantized" else None
        return NoisyPair(pair, self.way.ranges, like)

    def engine_rung(
        self, shipped: Shipped, before: str, got: Sequence[Values], held: Sequence[Values]
    ) -> Rung:
        simulated = self.graphs[before]
        bound = rounding_bound(simulated, self.few) if holds_qdq(simulated) else {}
        look: EngineLook = engine_look(shipped, simulated, self.few, self.way.feeding, bound)
        return self.rung(
            "engine", got, held, look.allowed, before, look.culprits, look.tensors, "build"
        )

    def served_rung(self, engine: Sequence[Values]) -> Rung:
        assert self.way.served is not None
        inputs, got = self.way.served_inputs, list[Values]()
        for sample in self.samples:
            got.append(self.way.served(self.way.feeding.given(inputs, sample.feeds)))
        why = "an answer holds the engine's numbers"
        return self.rung("served", got, engine, (_SERVED_DB, why), "engine", stage="serve")

    def rung(
        self,
        name: str,
        got: Sequence[Values],
        held: Sequence[Values],
        allowed: tuple[float, str],
        against: str,
        culprits: Sequence[Culprit] = (),
        tensors: Sequence[TensorError] = (),
        stage: str = "",
        own_db: float | None = None,
    ) -> Rung:
        found = between(self.truth, got)
        outputs = tuple(
            OutputLoss(error.row(n, "output"), *self.limit(n, name)) for n, error in found.items()
        )
        own = worst(between(held, got)) if own_db is None else own_db
        stage = stage or STAGES[name]
        if name == "quantized" and "uncorrected" in self.graphs:
            stage = "correct"
        return Rung(name, stage, against, outputs, own, *allowed, tuple(culprits), tuple(tensors))

    def limit(self, output: str, rung: str) -> tuple[float | None, str]:
        """The threshold of an output, which holds for what is shipped and all that leads to it; a
        graph that is still to be corrected is held to none."""
        limits = self.way.limits
        if rung in (self.first, "uncorrected") or not limits:
            return None, ""
        least = limits.get(output, limits.get(""))
        return (None, "") if least is None else (least, self.way.limits_from)


def _rows(found: Mapping[str, Difference], model: Model) -> list[TensorError]:
    operators = makers(model)
    return [one.row(name, operators[name]) for name, one in found.items()]


def _same(a: Model, b: Model) -> bool:
    """Whether two graphs compute the same by the letter, whatever else is written in them."""
    if a.inputs != b.inputs or a.outputs != b.outputs:
        return False
    parts = [(m.proto.graph.node, m.proto.graph.initializer) for m in (a, b)]
    return all(list(x) == list(y) for x, y in zip(*parts, strict=True))
