"""Which of several engines to ship: measured here, side by side, within a time budget.

A shared machine drifts by more than what two engines differ, and one model compiled twice differs
by up to 3 %. So every candidate runs in the same rounds, what is clearly slower leaves early, the
few that remain are compiled again, three times where that is quick, for a loop of their own, and of
those that differ by no more than such luck the preferred one is shipped. A GPU's own clock decides
where every candidate has it: the host's has Python's calls in it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from deploy.artifacts.engine import Engine
from deploy.errors import BuildError, one_line
from deploy.on_device.latency_check import TIE, Timings

_WARM_UP = 3
# what a candidate may be slower than the fastest one after so many rounds, and still go on
_SCREENED_AFTER = 8
_HOPELESS = 1.15
_FINALISTS = 4
_MOST_ROUNDS = 100
# by turns, so that no candidate wins or loses by one lucky compilation
_COMPILATIONS = 3
# of the time left, what compiling all finalists once more may take
_COMPILING_SHARE = 0.25
# what three compilations of one model still differ by
_TIE_OF_SEVERAL = 0.015
# of the budget: the rest is for the finalists
_SCREENING_SHARE = 0.6

Open = Callable[[], Engine]
Call = Callable[[], float | None]
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
    the reason for each candidate that is out. of_device: the figures are of the device's own
    clock. A gate on accuracy goes down `order`.
    """

    order: tuple[str, ...]
    measured: tuple[Measured, ...]
    left_out: Mapping[str, str]
    of_device: bool = False


def choose(
    candidates: Mapping[str, Open],
    feeds: Callable[[Engine], Mapping[str, np.ndarray]],
    *,
    needed: Collection[str] = (),
    rivals: Collection[str] = (),
    preference: Sequence[str] = (),
    budget_s: float = 20.0,
    clock: Clock = time.perf_counter,
) -> Choice:
    """The candidates in the order to ship them: among those as fast as the fastest, the preferred
    one. As fast is what is within 3 %, and within 1.5 % where there was time to compile each three
    times.

    candidates: what to compile, by name; a BuildError of the first is raised, of another noted,
    when it runs too. feeds: what one run of an engine takes. rivals: what the winner's lead is told
    over, so that the fastest of them comes to the final loop. preference: all names, the one to
    prefer first; in the order of `candidates` if not given. budget_s: compiling included; the first
    two and those `needed` are measured whatever it takes.
    """
    race = _Race(candidates, feeds, clock, needed)
    end = clock() + budget_s
    screened = race.loop(list(candidates), clock() + _SCREENING_SHARE * budget_s, screen=True)
    listed = [name for name in preference or candidates if name in screened]
    finalists = sorted(listed, key=lambda name: screened[name])[:_FINALISTS]
    default = next(name for name in candidates if name in screened)
    rival = sorted((name for name in rivals if name in screened), key=lambda n: screened[n])[:1]
    again = [name for name in listed if name in (*finalists, default, *rival)]
    final = race.loop(again, end, screen=False) if len(again) > 1 else screened
    out = {*final, *race.left_out}
    rest = {name: ms for name, ms in screened.items() if name not in out}
    again = [name for name in again if name in final]
    tie = _TIE_OF_SEVERAL if race.compilations == _COMPILATIONS else TIE
    order = (*preferred(again, final, tie), *preferred([n for n in listed if n in rest], rest))
    figures = [(final, final is not screened), (rest, False)]
    measured = [
        Measured(name, times[name], race.rounds[name], last)
        for times, last in figures
        for name in sorted(times, key=lambda name: times[name])
    ]
    return Choice(order, tuple(measured), race.left_out, race.of_device)


def preferred(
    listed: Sequence[str], medians_ms: Mapping[str, float], tie: float = TIE
) -> list[str]:
    """The names by what to ship first: the fastest, but of all within a share of `tie` the one
    listed first."""
    left, found = list(listed), []
    while left:
        fastest = min(medians_ms[name] for name in left)
        found.append(next(n for n in left if medians_ms[n] * (1 - tie) <= fastest))
        left.remove(found[-1])
    return found


@dataclass
class _Race:
    """Loops over candidates, and what became of them.

    compilations: of every candidate in the last loop.
    """

    candidates: Mapping[str, Open]
    feeds: Callable[[Engine], Mapping[str, np.ndarray]]
    clock: Clock
    needed: Collection[str] = ()
    rounds: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    of_device: bool = False
    compilations: int = 1

    def loop(self, names: Sequence[str], end: float, *, screen: bool) -> dict[str, float]:
        """Median milliseconds of each candidate that could be opened, interleaved."""
        with ExitStack() as opened:
            start = self.clock()
            calls = self._opened(names, end if screen else None, opened)
            if not screen:
                self._open_again(calls, self.clock() - start, end, opened)
            times = self._timed(calls, end, screen)
        self.rounds |= {name: len(seen.wall_s) for name, seen in times.items()}
        return self._medians(times)

    def _opened(
        self, names: Sequence[str], end: float | None, opened: ExitStack
    ) -> dict[str, list[Call]]:
        """Calls of the compiled candidates, warm; compiling takes half of the time to `end` at
        most."""
        start = self.clock()
        latest = np.inf if end is None else start + (end - start) / 2
        calls: dict[str, list[Call]] = {}
        for name in names:
            spare = len(calls) > 1 and name not in self.needed
            if spare and self.clock() > latest:
                self.left_out[name] = "not compiled: the time budget was spent; raise it"
                continue
            try:
                calls[name] = [self._warm(name, opened)]
            except BuildError as error:
                self._drop(name, error, needed=not calls)
        return calls

    def _open_again(
        self, calls: Mapping[str, list[Call]], took_s: float, end: float, opened: ExitStack
    ) -> None:
        """Further compilations of every candidate, all of them or none."""
        while (
            self.compilations < _COMPILATIONS and took_s <= (end - self.clock()) * _COMPILING_SHARE
        ):
            try:
                again = {name: self._warm(name, opened) for name in calls}
            except BuildError:
                return  # what compiled before and now doesn't is short of memory
            for name, call in again.items():
                calls[name].append(call)
            self.compilations += 1

    def _warm(self, name: str, opened: ExitStack) -> Call:
        """A compiled candidate's call, its caches warm."""
        engine = opened.enter_context(self.candidates[name]())
        call = engine.timed(self.feeds(engine))
        for _ in range(_WARM_UP):
            call()
        return call

    def _timed(
        self, calls: Mapping[str, list[Call]], end: float, screen: bool
    ) -> dict[str, Timings]:
        """What each call took; each round calls one compilation of every candidate twice and times
        the second call, so that it finds its own data in the caches."""
        times = {name: Timings([], []) for name in calls}
        racing = list(calls)
        for done in range(_MOST_ROUNDS):
            if done >= _SCREENED_AFTER and self.clock() > end:
                break
            if screen and done == _SCREENED_AFTER:
                racing = self._hopeful(times)
            for name in list(racing):
                try:
                    self._time(calls[name][done % len(calls[name])], times[name])
                except BuildError as error:
                    self._drop(name, error, needed=name == next(iter(calls)))
                    racing.remove(name)
                    del times[name]
        return times

    def _time(self, call: Call, found: Timings) -> None:
        call()
        start = self.clock()
        of_device = call()
        found.wall_s.append(self.clock() - start)
        if of_device is not None:
            found.gpu_ms.append(of_device)

    def _drop(self, name: str, error: BuildError, *, needed: bool) -> None:
        """Note why a candidate is out; where there's no race without it, what went wrong before it
        is told too: a kernel that reads where nothing lies stops the GPU for the whole process."""
        if needed and self.left_out:
            others = "; ".join(f"{other}: {said}" for other, said in self.left_out.items())
            raise BuildError(f"{error} (and before it {one_line(others, 600)})") from None
        if needed:
            raise error
        self.left_out[name] = str(error)

    def _medians(self, times: Mapping[str, Timings]) -> dict[str, float]:
        """Milliseconds, of all by the same clock."""
        self.of_device = all(seen.gpu_ms for seen in times.values())
        if self.of_device:
            return {name: statistics.median(seen.gpu_ms) for name, seen in times.items()}
        return {name: statistics.median(seen.wall_s) * 1e3 for name, seen in times.items()}

    def _hopeful(self, times: Mapping[str, Timings]) -> list[str]:
        """Who goes on: the first, and what isn't clearly slower than the fastest."""
        medians = self._medians(times)
        limit = _HOPELESS * min(medians.values())
        first = next(iter(times))
        return [name for name in times if name == first or medians[name] <= limit]
