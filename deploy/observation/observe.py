"""What a model's tensors hold over real samples: exact extremes, and a part of the values.

The runtime sees one sample at a time (or the batch the model fixes) on one thread, so results
don't depend on how many samples are handed over together. Threads work on different samples.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from calibrators.samples import Sample
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.batches import feeds_of, fixed_batch, rows
from deploy.errors import BuildError, CalibrationError, ModelError
from deploy.observation.finite import finite_if_small
from deploy.observation.graph import FLOATS, observed_graph
from deploy.observation.overlap import overlapped
from deploy.observation.probes import Probe
from deploy.observation.seen import INFINITE, Readout, Seen, seen_whole

Advance = Callable[[int], None]


@dataclass(frozen=True)
class ChannelRange:
    """Per channel the smallest and largest value over all samples: low, high: float32[C]."""

    low: np.ndarray
    high: np.ndarray


def channel_ranges(
    model: Model,
    samples: Iterable[Sample],
    tensors: Mapping[str, int],
    *,
    advance: Advance = lambda count: None,
) -> dict[str, ChannelRange]:
    """Exact extremes per channel of each tensor: `tensors` maps its name to its channel axis.

    The same whatever the order of the samples. CalibrationError names the tensor and sample that
    hold NaN or Inf; ModelError when a tensor isn't a float tensor of the model.
    """
    probes = [Probe(name, axis) for name, axis in tensors.items()]
    found: dict[str, ChannelRange] = {}
    lock = threading.Lock()
    with Observer(model, probes) as observer:

        def work(group: list[Sample], size: int) -> None:
            for sample in observer.observe(group, size):
                with lock:
                    for name, seen in sample.items():
                        _widen(found, name, seen)

        count = overlapped(samples, model.inputs, work, advance)
    if not count:
        raise CalibrationError("no samples to observe; check --data and --samples")
    for name in tensors:
        if name not in found:
            raise CalibrationError(f"tensor {name!r} had no elements in any sample; check --shape")
    return {name: found[name] for name in tensors}


def _widen(found: dict[str, ChannelRange], name: str, seen: Seen) -> None:
    if not seen.low.size:
        return
    old = found.get(name)
    if old is None:
        found[name] = ChannelRange(seen.low + 0.0, seen.high + 0.0)
        return
    if old.low.shape != seen.low.shape:
        raise CalibrationError(
            f"tensor {name!r} has {seen.low.size} channels on one sample and {old.low.size} on "
            "another; choose an axis of fixed size"
        )
    # + 0.0: which of 0.0 and -0.0 came first must not show
    found[name] = ChannelRange(
        np.minimum(old.low, seen.low) + 0.0, np.maximum(old.high, seen.high) + 0.0
    )


class Observer:
    """Runs samples through an observed graph; a context manager, safe to use from threads.

    infinite: tensors that may hold Inf (an attention mask does), though no NaN: what becomes of
    that differs between runtimes.
    """

    def __init__(
        self, model: Model, probes: Sequence[Probe], *, infinite: Collection[str] = ()
    ) -> None:
        _check(model, probes)
        self.infinite = frozenset(infinite)
        self.model = model
        self.probes = probes
        self.batch = fixed_batch(model.inputs)
        self._graphs: dict[int, tuple[Engine, Readout]] = {}
        self._whole: Engine | None = None
        # tensors whose low end is computed although a bound is known; None: all of them
        self._lows: set[str] | None = set()
        # tensors that need no mean of their own
        self._finite = finite_if_small(model.proto.graph, {probe.tensor for probe in probes})
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for engine, _ in self._graphs.values():
            engine.close()
        if self._whole is not None:
            self._whole.close()

    def observe(self, group: Sequence[Sample], size: int) -> list[dict[str, Seen]]:
        """Per sample of the group, what each probed tensor held; CalibrationError for NaN or Inf.

        size: the batch the model runs, at least the group's length.
        """
        feeds = feeds_of(group, size)
        while True:
            engine, readout = self._engine(size)
            try:
                out = engine.run(feeds)
            except BuildError:
                # such as a tensor without elements, which nothing can be reduced of
                return self._slowly(group, size, feeds)
            if not readout.small(out):
                if readout.proves:
                    self._compute(engine, size, means=True)
                    continue
                if not readout.finite(out):
                    # NaN, Inf, or only a mean of huge values: looked at one by one
                    return self._slowly(group, size, feeds)
            missed = readout.missed(out, len(group))
            if not missed:
                return readout.seen(out, len(group))
            self._compute(engine, size, lows=missed)

    def _engine(self, size: int) -> tuple[Engine, Readout]:
        with self._lock:
            if size not in self._graphs:
                graph, outlets = observed_graph(
                    self.model, self.probes, size, self._lows, self._finite
                )
                engine = reference.build_in_order(graph)
                self._graphs[size] = engine, Readout(self.probes, outlets)
            return self._graphs[size]

    def _compute(
        self, engine: Engine, size: int, *, lows: Sequence[str] = (), means: bool = False
    ) -> None:
        """From here on a graph that computes all means, or these low ends; the second time, all."""
        with self._lock:
            if size in self._graphs and self._graphs[size][0] is engine:
                if means:
                    self._finite = frozenset()
                else:
                    self._lows = None if self._lows else set(lows)
                # not closed: another thread may be in the middle of a run
                del self._graphs[size]

    def _slowly(
        self, group: Sequence[Sample], size: int, feeds: dict[str, np.ndarray]
    ) -> list[dict[str, Seen]]:
        """The same from whole activations, in NumPy; this also says what is wrong, and where."""
        with self._lock:
            if self._whole is None:
                names = [probe.tensor for probe in self.probes]
                self._whole = reference.build_observer(self.model, names)
        out = self._whole.run(feeds) | feeds
        found = []
        for index, sample in enumerate(group):
            seen = {p.tensor: seen_whole(p, rows(out[p.tensor], index, size)) for p in self.probes}
            found.append({name: self._usable(name, one, sample) for name, one in seen.items()})
        return found

    def _usable(self, name: str, seen: Seen, sample: Sample) -> Seen:
        if np.isfinite(seen.low).all() and np.isfinite(seen.high).all():
            return seen
        # NumPy's extremes are NaN as soon as one value is
        if name in self.infinite and not np.isnan([*seen.low, *seen.high]).any():
            return INFINITE
        raise CalibrationError(
            f"tensor {name!r} holds NaN or Inf on sample {sample.name}; leave the sample out or "
            "mend the model, no range can cover it"
        )


def _check(model: Model, probes: Sequence[Probe]) -> None:
    graph = model.proto.graph
    kinds = {v.name: v.type.tensor_type for v in (*graph.input, *graph.value_info, *graph.output)}
    for probe in probes:
        if probe.tensor not in kinds or kinds[probe.tensor].elem_type not in FLOATS:
            raise ModelError(f"{model.name}: {probe.tensor!r} is no float tensor of the model")
        rank = len(kinds[probe.tensor].shape.dim)
        if probe.axis is not None and not 0 <= probe.axis < rank:
            raise ModelError(
                f"{model.name}: axis {probe.axis} of {probe.tensor!r}, which has rank {rank}; "
                f"allowed: 0 to {rank - 1}"
            )
