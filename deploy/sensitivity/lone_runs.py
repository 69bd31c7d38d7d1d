"""The float model over samples, halted in front of each layer, its rest run with that in INT8."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np

from calibrators.samples import Sample, evenly_spaced
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.batches import batches, feeds_of
from deploy.errors import CalibrationError
from deploy.sensitivity.float_ends import float_ends
from deploy.sensitivity.lone_layers import LoneLayer, noise_of
from deploy.surgery.spans import NO_GRAFT, Graft, Spans

Values = Mapping[str, np.ndarray]
Run = Callable[[Values], Values]
# bytes of activations and outputs that may be held in front of a layer, over all samples
_MOST_BYTES = 256 << 20
# with fewer runs than this the figures say little
_FEWEST = 8


class LoneRuns:
    """What each layer alone does to the outputs; a context manager.

    count: samples in use, as many as fit into memory.
    """

    def __init__(
        self, exact: Model, layers: Sequence[LoneLayer], samples: Sequence[Sample]
    ) -> None:
        exact = float_ends(exact)
        outputs = [spec.name for spec in exact.outputs if spec.dtype.kind == "f"]
        if not samples:
            raise CalibrationError("no samples to measure layers on; check --data and --samples")
        self._exact, self._outputs, self._spans = exact, outputs, Spans(exact)
        self._starts = {layer.name: self._spans.cut(layer.first) for layer in layers}
        self._heads = self._cut(sorted({*self._starts.values()} - {0}))
        groups = list(batches(samples, exact.inputs))
        with reference.ReferenceEngine(exact, threads=1) as engine:
            most = self._fitting(feeds_of(*groups[0]), engine.run)
            # not the first ones, see `deploy.observation.walk`
            groups = [groups[i] for i in evenly_spaced(range(len(groups)), most)]
            self.count = sum(len(group) for group, _ in groups)
            self._feeds = [feeds_of(*group) for group in groups]
            self._pool = ThreadPoolExecutor(reference.cores())
            self._expected = [self._floats(x) for x in self._pool.map(engine.run, self._feeds)]
        self._check_finite(groups)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()

    def guesses(self, layers: Sequence[LoneLayer]) -> dict[str, float]:
        """Noise over signal of what each layer reads, on the first run: cheap, and good for no more
        than the order to measure in."""
        names = sorted({name for layer in layers for name in layer.activations})
        with reference.build_observer(self._exact, names) as engine:
            values = {**self._feeds[0], **engine.run(self._feeds[0])}
        return {
            layer.name: layer.weight_noise
            + sum(noise_of(values[name], params) for name, params in layer.activations.items())
            for layer in layers
        }

    def measure(self, layers: Sequence[LoneLayer]) -> Iterator[tuple[str, float]]:
        """(name, noise power over signal power) of each layer, in the graph's order."""
        states: list[Values] = list(self._feeds)
        at = 0
        for layer in sorted(layers, key=lambda x: self._starts[x.name]):
            for cut, head in self._heads:
                if at < cut <= self._starts[layer.name]:
                    states, at = list(self._pool.map(head, states)), cut
            yield layer.name, self._noise(layer, states)

    def _cut(self, cuts: Sequence[int]) -> list[tuple[int, Run]]:
        starts = [0, *cuts[:-1]] if cuts else []
        return [(cut, self._head(start, cut)) for start, cut in zip(starts, cuts, strict=True)]

    def _head(self, start: int, cut: int) -> Run:
        """Takes what is held in front of node `start`, gives what has to be held at `cut`."""
        held = self._spans.live(cut)
        made = [name for name in held if self._spans.number(name) >= start]
        run = self._runner(start, cut, made)

        def head(state: Values) -> Values:
            found = run(state)
            return {name: found[name] if name in found else state[name] for name in held}

        return head

    def _runner(self, start: int, stop: int, gives: Sequence[str], graft: Graft = NO_GRAFT) -> Run:
        if not gives:
            return lambda state: {}
        piece, takes = self._spans.between(start, stop, gives, graft)
        engine = reference.ReferenceEngine(piece, threads=1)
        return lambda state: engine.run({name: state[name] for name in takes})

    def _fitting(self, feed: Values, run: Run) -> int:
        """How many runs fit, judged by what this one holds."""
        outputs = _bytes(self._floats(run(feed)))
        state, most = feed, outputs
        for _, head in self._heads:
            state = head(state)
            most = max(most, _bytes(state) + outputs)
        return max(_FEWEST, _MOST_BYTES // max(most, 1))

    def _floats(self, values: Values) -> Values:
        return {name: values[name] for name in self._outputs}

    def _check_finite(self, groups: Sequence[tuple[list[Sample], int]]) -> None:
        for (group, _), values in zip(groups, self._expected, strict=True):
            for name, x in values.items():
                if not np.isfinite(x).all():
                    raise CalibrationError(
                        f"output {name!r} holds NaN or Inf on sample {group[0].name} in float "
                        "already; leave the sample out or mend the model"
                    )

    def _noise(self, layer: LoneLayer, states: Sequence[Values]) -> float:
        """Noise power over signal power, the mean over all outputs."""
        start, stop = self._starts[layer.name], len(self._spans)
        gives = [name for name in self._outputs if self._spans.number(name) >= start]
        run = self._runner(start, stop, gives, self._mended(layer, states))
        errors = {name: _Error() for name in self._outputs}
        for got, expected in zip(self._pool.map(run, states), self._expected, strict=True):
            for name, error in errors.items():
                error.add(got.get(name, expected[name]), expected[name])
        ratios = [error.noise / error.signal for error in errors.values() if error.signal]
        return sum(ratios) / len(ratios) if ratios else 0.0

    def _mended(self, layer: LoneLayer, states: Sequence[Values]) -> Graft:
        """The layer in INT8, its bias corrected for what that moves each channel by.

        Where it isn't, a few layers' shifts outweigh all noise, and correction would remove them
        (dscnn_kws, symmetric: -19.5 dB predicted instead of -24.5, 25.3 measured).
        """
        axis = layer.axis
        if axis is None:
            return layer.graft
        stretch = (self._starts[layer.name], layer.last + 1, [layer.output])
        exact, rounded = self._runner(*stretch), self._runner(*stretch, layer.graft)

        def shift(state: Values) -> np.ndarray:
            error = exact(state)[layer.output] - rounded(state)[layer.output]
            others = tuple(i for i in range(error.ndim) if i != axis % error.ndim)
            return np.asarray(error.mean(axis=others, dtype=np.float64, keepdims=True))

        shifts = list(self._pool.map(shift, states))
        return layer.mended(np.mean(shifts, axis=0).astype(np.float32))


class _Error:
    """What one output is off by, over the runs."""

    def __init__(self) -> None:
        self.signal = 0.0
        self._power = 0.0
        self._count = 0
        # None once sizes differ
        self._sum: np.ndarray | None = None

    def add(self, got: np.ndarray, expected: np.ndarray) -> None:
        exact = expected.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            error = got - exact
            self._power += float(np.sum(error**2))
        self.signal += float(np.sum(exact**2))
        if self._count == 0:
            self._sum = error
        elif self._sum is not None:
            self._sum = self._sum + error if self._sum.shape == error.shape else None
        self._count += 1

    @property
    def noise(self) -> float:
        """The power of what varies; of everything, where there is one run, or sizes differ."""
        if self._sum is None or self._count < 2 or not np.isfinite(self._power):
            return self._power
        varying = self._power - float(np.sum(self._sum**2)) / self._count
        # the mean of few runs takes a part of the noise with it
        return max(varying, 0.0) * self._count / (self._count - 1)


def _bytes(values: Values) -> int:
    return sum(x.nbytes for x in values.values())
