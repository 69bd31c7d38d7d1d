"""The requests that wait for the engine: bounded, merged when several wait, dropped when late."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from deploy.serving.refusals import Kind, RefusalError

Outputs = dict[str, np.ndarray]


@dataclass(eq=False)
class Job:
    """One request's tensors and what to do with its outputs, or with the error in their place.

    key: jobs of the same key may be run as one. deadline: of time.monotonic.
    """

    feeds: Mapping[str, np.ndarray]
    rows: int
    key: tuple[tuple[int, ...], ...]
    deadline: float
    done: Callable[[Outputs | BaseException], None]
    since: float = field(default_factory=time.monotonic)
    # the caller went away
    dropped: bool = False


class Waiting:
    """A queue between the servers and the engine's threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Queue a job; refused (503) when `limit` wait already, or after `close`."""
        with self._changed:
            if self._closed:
                raise RefusalError(Kind.BUSY, "the server is stopping; ask another one")
            if len(self._jobs) >= self._limit:
                raise RefusalError(
                    Kind.BUSY, f"{len(self._jobs)} requests wait already; try again later"
                )
            self._jobs.append(job)
            self._changed.notify()

    def take(self, most_rows: int) -> list[Job]:
        """What waits: one job, and those behind it that can be merged with it, up to `most_rows`
        rows. Blocks while nothing waits; empty once closed and run dry."""
        with self._changed:
            while True:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return []
                taken = self._next(most_rows)
                if taken:
                    return taken

    def close(self) -> None:
        """Refuse further jobs; those that wait are still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self, most_rows: int) -> list[Job]:
        now = time.monotonic()
        taken: list[Job] = []
        rows = 0
        while self._jobs:
            job = self._jobs[0]
            if job.dropped:
                self._jobs.popleft()
                continue
            if job.deadline <= now:
                self._jobs.popleft()
                waited = now - job.since
                job.done(
                    RefusalError(Kind.EXPIRED, f"waited {waited:.3f} s for the engine, too long")
                )
                continue
            if taken and (job.key != taken[0].key or rows + job.rows > most_rows):
                break
            taken.append(self._jobs.popleft())
            rows += job.rows
        return taken
