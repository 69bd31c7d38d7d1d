"""A sample set in parts: workers read the samples where they find the same ones, else get them."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from calibrators.samples import Sample
from deploy.cluster.fitness import Needs
from deploy.cluster.workers import Workers
from deploy.data import SampleSet
from deploy.errors import DeployError, one_line

R = TypeVar("R")
Work = Callable[[bytes, "Part"], R]

# a worker gets about so many parts: with more, a lost one costs less, and starts cost more
_PARTS = 2
# fewer samples than this aren't worth another start of the network
_LEAST = 64
# what unpickling and reading raise where a file, a module or a class isn't the same
_UNREAD = (DeployError, OSError, ValueError, ImportError, AttributeError, TypeError)


@dataclass(frozen=True)
class Part:
    """Consecutive samples of a set, from `start` on; iterate it.

    expected: their hashes, in order. named: the pickled dataset and indices, to be read where the
    task runs. sent: the samples themselves, where they come along.
    """

    start: int
    expected: tuple[str, ...]
    named: bytes = b""
    sent: tuple[Sample, ...] | None = None

    def __len__(self) -> int:
        return len(self.expected)

    def __iter__(self) -> Iterator[Sample]:
        if self.sent is not None:
            yield from self.sent
            return
        found = self._read()
        for expected in self.expected:
            sample = next(found, None)
            if sample is None or sample.identity() != expected:
                raise _UnreadError("other samples there")
            yield sample

    def _read(self) -> Iterator[Sample]:
        try:
            dataset, indices = pickle.loads(self.named)
            yield from dataset.read(indices)
        except (*_UNREAD, pickle.PickleError) as error:
            raise _UnreadError(one_line(error)) from None


@dataclass(frozen=True)
class Unread:
    """In place of a result: why the samples can't be read where the task ran."""

    reason: str


@dataclass(frozen=True)
class Plan:
    """How samples are cut: into `parts` (0: as many as pay), at multiples of `align`.

    align: samples that one run takes together, so that none is run among others than alone.
    """

    needs: Needs
    parts: int = 0
    align: int = 1
    advance: Callable[[int], None] = lambda count: None


def results(
    workers: Workers, work: Work[R], shared: bytes, samples: SampleSet, plan: Plan
) -> Iterator[R]:
    """`work(shared, part)` for every part of the samples, in order.

    A part that a worker can't read, or reads differently, is read here and sent, and so are the
    parts after it.
    """
    source = _Source(samples)
    task = _Guarded(work)
    asked: deque[Part] = deque()

    def parts() -> Iterator[Part]:
        for start, stop in cuts(len(samples), plan.parts or _PARTS * workers.count(), plan):
            asked.append(source.part(start, stop))
            yield asked[-1]

    for result in workers.map(task, shared, parts(), plan.needs):
        part = asked.popleft()
        if isinstance(result, Unread):
            source.sending = True
            again = source.part(part.start, part.start + len(part))
            (result,) = workers.map(task, shared, [again], plan.needs)
            assert not isinstance(result, Unread)  # nothing was left to read
        plan.advance(len(part))
        yield result


def cuts(total: int, parts: int, plan: Plan) -> Iterator[tuple[int, int]]:
    """Where each part starts and stops: nearly equal ones, at least one, maybe of no samples."""
    runs = -(-total // plan.align)
    count = max(1, min(parts, runs))
    if not plan.parts:
        count = max(1, min(count, total // _LEAST))
    for i in range(count):
        start, stop = runs * i // count, runs * (i + 1) // count
        yield start * plan.align, min(stop * plan.align, total)


class _UnreadError(Exception):
    """The samples of a part can't be had where it is worked on."""


class _Guarded(Generic[R]):
    """The work, with `Unread` in place of a failure to read."""

    def __init__(self, work: Work[R]) -> None:
        self.work = work

    def __call__(self, shared: bytes, part: Part) -> R | Unread:
        try:
            return self.work(shared, part)
        except _UnreadError as error:
            return Unread(str(error))


class _Source:
    """Makes the parts: named, or, once `sending`, with the samples in them."""

    def __init__(self, samples: SampleSet) -> None:
        self.samples = samples
        # noise lies nowhere, and a function may give other samples elsewhere
        self.sending = not samples.uri or samples.uri.startswith("python:")

    def part(self, start: int, stop: int) -> Part:
        whole = self.samples
        part = Part(start, whole.hashes[start:stop])
        indices = whole.indices[start:stop]
        if not self.sending:
            try:
                return replace(part, named=pickle.dumps((whole.dataset, indices)))
            # a dataset of somebody's own that wasn't made to travel
            except (TypeError, AttributeError, pickle.PickleError):
                self.sending = True
        # read through a SampleSet, so that what is wrong is said as in a single process
        chosen = SampleSet(whole.uri, whole.dataset, indices, whole.about)
        return replace(part, sent=tuple(chosen))
