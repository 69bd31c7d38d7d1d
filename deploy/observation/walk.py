"""A graph run layer by layer over many samples, each layer mended before the next one runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from calibrators.samples import evenly_spaced
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.errors import BuildError, CalibrationError
from deploy.surgery.segments import Segment, segments

Feeds = Mapping[str, np.ndarray]
State = dict[str, np.ndarray]
# bytes of activations that may be held between two layers, over all samples
_MOST_BYTES = 256 << 20
# mean errors of fewer samples than this say little
_FEWEST = 16


@dataclass(frozen=True)
class Reached:
    """A target tensor before it is mended. mean: float64[C], over runs and positions, each run
    counting the same; span: its largest value minus its smallest one."""

    target: str
    mean: np.ndarray
    span: float


Mend = Callable[[Reached], np.ndarray]


class Walk:
    """The pieces of a graph up to each target tensor, and the runs that fit into memory.

    targets: name -> channel axis. feeds: one per run of the model, all inputs; of more than fit
    some are used, spread over all of them. CalibrationError for none, and when the runtime can't
    run a piece, with the name of its target.
    """

    def __init__(self, model: Model, targets: Mapping[str, int], feeds: Sequence[Feeds]) -> None:
        if not feeds:
            raise CalibrationError("no samples to run; check --data and --samples")
        self._axes = targets
        self._pieces = [_Piece(model, part) for part in segments(model, list(targets))]
        # not the first ones: samples often come sorted, by class or by document
        self.feeds = [feeds[i] for i in evenly_spaced(range(len(feeds)), self._fitting(feeds))]

    def run(self, mend: Mend) -> None:
        """Run up to each target in turn, add what `mend` says (float64[C]), and go on from there.

        The same result with any number of cores.
        """
        states = [dict(feed) for feed in self.feeds]
        with ThreadPoolExecutor(reference.cores()) as pool:
            for piece in self._pieces:
                self._step(piece, states, pool, mend)

    def _step(
        self, piece: _Piece, states: list[State], pool: ThreadPoolExecutor, mend: Mend
    ) -> None:
        target = piece.part.target
        axis = self._axes[target]
        found = list(pool.map(lambda state: piece.reach(state, axis), states))
        mean = np.mean([mean for _, mean, _ in found], axis=0)
        low, high = (f([ends[i] for *_, ends in found]) for i, f in ((0, min), (1, max)))
        added = mend(Reached(target, mean, high - low))
        for state, (values, _, _) in zip(states, found, strict=True):
            x = values[target]
            # in place: whoever holds the value holds the mended one
            x += _along(added, axis, x.ndim).astype(x.dtype)
            piece.pass_on(state, values)

    def _fitting(self, feeds: Sequence[Feeds]) -> int:
        """How many runs fit, judged by what the largest one holds between layers."""
        largest = max(range(len(feeds)), key=lambda i: sum(x.nbytes for x in feeds[i].values()))
        state: State = dict(feeds[largest])
        most = 1
        for piece in self._pieces:
            values = piece.run(state)
            most = max(most, sum(x.nbytes for x in (*state.values(), *values.values())))
            piece.pass_on(state, values)
        return min(len(feeds), max(_FEWEST, _MOST_BYTES // most))


class _Piece:
    """A segment and the session that runs it."""

    def __init__(self, model: Model, part: Segment) -> None:
        self.part = part
        try:
            self._run = reference.build_piece(model.derive(part.proto, ()))
        except BuildError as error:
            raise CalibrationError(f"up to {part.target!r}: {error}") from None

    def run(self, state: State) -> State:
        try:
            return self._run({name: state[name] for name in self.part.feeds})
        except BuildError as error:
            raise CalibrationError(f"up to {self.part.target!r}: {error}") from None

    def reach(self, state: State, axis: int) -> tuple[State, np.ndarray, tuple[float, float]]:
        """What it computes, and of its target the mean per channel, the least and the largest."""
        values = self.run(state)
        x = values[self.part.target]
        return values, channel_mean(x, axis), (float(x.min()), float(x.max()))

    def pass_on(self, state: State, values: State) -> None:
        for name in self.part.frees:
            state.pop(name, None)
        state.update((name, values[name]) for name in self.part.keeps)


def channel_mean(x: np.ndarray, axis: int) -> np.ndarray:
    """float64[C]: the mean over all other axes."""
    moved = np.moveaxis(x, axis, 0)
    return np.asarray(moved.reshape(len(moved), -1).mean(axis=1, dtype=np.float64))


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
