"""Which of several engines to ship: measured here, side by side, within a time budget.

A shared machine drifts by more than what two engines differ, and one model compiled twice differs
by up to 3 %. So every candidate runs in the same rounds, what is clearly slower leaves early, the
few that remain are compiled again for a loop of their own, and the candidate named first stays
unless another one is faster by more than such luck.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from deploy.artifacts.engine import Engine
from deploy.errors import BuildError

TIE = 0.03
_WARM_UP = 3
# what a candidate may be slower than the fastest one after so many rounds, and still go on
_SCREENED_AFTER = 8
_HOPELESS = 1.15
_FINALISTS = 4
_MOST_ROUNDS = 100
# of the budget: the rest is for the finalists
_SCREENING_SHARE = 0.6

Open = Callable[[], Engine]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Measured:
    """Median milliseconds of one candidate, in how many rounds, and whether it came to the final
    loop: only figures of one loop can be compared."""

    name: str
    median_ms: float
    rounds: int
    final: bool


@dataclass(frozen=True)
class Choice:
    """What to ship: `order` is all measured candidates, the one to try first in front.

    measured: every figure, fastest first, those of the final loop before the others. left_out:
    the reason for each candidate without a figure. A gate on accuracy goes down `order`.
    """

    order: tuple[str, ...]
    measured: tuple[Measured, ...]
    left_out: Mapping[str, str]


def choose(
    candidates: Mapping[str, Open],
    feeds: Callable[[Engine], Mapping[str, np.ndarray]],
    *,
    needed: Collection[str] = (),
    budget_s: float = 20.0,
    clock: Clock = time.perf_counter,
) -> Choice:
    """The candidates in the order to ship them: among those within 3 % of the fastest, the one
    listed first.

    candidates: what to compile, by name, the preferred one first; a BuildError of the first is
    raised, of another noted. feeds: what one run of an engine takes. budget_s: compiling included;
    the first two and those `needed` are measured whatever it takes.
    """
    race = _Race(candidates, feeds, clock, needed)
    end = clock() + budget_s
    screened = race.loop(list(candidates), clock() + _SCREENING_SHARE * budget_s, screen=True)
    listed = [name for name in candidates if name in screened]
    finalists = preferred(listed, screened)[:_FINALISTS]
    default = listed[0]
    again = [name for name in listed if name in finalists or name == default]
    final = race.loop(again, end, screen=False) if len(again) > 1 else screened
    rest = {name: ms for name, ms in screened.items() if name not in final}
    order = (*preferred(again, final), *preferred([n for n in listed if n in rest], rest))
    figures = [(final, len(again) > 1), (rest, False)]
    measured = [
        Measured(name, times[name], race.rounds[name], last)
        for times, last in figures
        for name in sorted(times, key=lambda name: times[name])
    ]
    return Choice(order, tuple(measured), race.left_out)


def preferred(listed: Sequence[str], medians_ms: Mapping[str, float]) -> list[str]:
    """The names by what to ship first: the fastest, but of all within 3 % the one listed first."""
    left, found = list(listed), []
    while left:
        fastest = min(medians_ms[name] for name in left)
        found.append(next(n for n in left if medians_ms[n] * (1 - TIE) <= fastest))
        left.remove(found[-1])
    return found


@dataclass
class _Race:
    """Loops over candidates, and what became of them."""

    candidates: Mapping[str, Open]
    feeds: Callable[[Engine], Mapping[str, np.ndarray]]
    clock: Clock
    needed: Collection[str] = ()
    rounds: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def loop(self, names: Sequence[str], end: float, *, screen: bool) -> dict[str, float]:
        """Median milliseconds of each candidate that could be opened, interleaved."""
        with ExitStack() as opened:
            calls = self._opened(names, end if screen else None, opened)
            times = self._timed(calls, end, screen)
        self.rounds |= {name: len(seen) for name, seen in times.items()}
        return {name: statistics.median(seen) * 1e3 for name, seen in times.items()}

    def _opened(
        self, names: Sequence[str], end: float | None, opened: ExitStack
    ) -> dict[str, Callable[[], None]]:
        """Calls of the compiled candidates, warm; compiling takes half of the time to `end` at
        most."""
        start = self.clock()
        latest = np.inf if end is None else start + (end - start) / 2
        calls: dict[str, Callable[[], None]] = {}
        for name in names:
            spare = len(calls) > 1 and name not in self.needed
            if spare and self.clock() > latest:
                self.left_out[name] = "not compiled: the time budget was spent; raise it"
                continue
            try:
                engine = opened.enter_context(self.candidates[name]())
            except BuildError as error:
                if not calls:
                    raise
                self.left_out[name] = str(error)
                continue
            calls[name] = engine.prepare(self.feeds(engine))
            for _ in range(_WARM_UP):
                calls[name]()
        return calls

    def _timed(
        self, calls: Mapping[str, Callable[[], None]], end: float, screen: bool
    ) -> dict[str, list[float]]:
        """Seconds per call; each round calls every candidate twice and times the second call, so
        that it finds its own data in the caches."""
        times: dict[str, list[float]] = {name: [] for name in calls}
        racing = list(calls)
        for done in range(_MOST_ROUNDS):
            if done >= _SCREENED_AFTER and self.clock() > end:
                break
            if screen and done == _SCREENED_AFTER:
                racing = self._hopeful(times)
            for name in racing:
                calls[name]()
                start = self.clock()
                calls[name]()
                times[name].append(self.clock() - start)
        return times

    def _hopeful(self, times: Mapping[str, list[float]]) -> list[str]:
        """Who goes on: the first, and what isn't clearly slower than the fastest."""
        medians = {name: statistics.median(seen) for name, seen in times.items()}
        limit = _HOPELESS * min(medians.values())
        first = next(iter(times))
        return [name for name in times if name == first or medians[name] <= limit]
