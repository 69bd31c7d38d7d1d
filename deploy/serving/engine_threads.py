"""The threads that run the engine: each takes what waits, merges it, runs it, hands it back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.errors import one_line
from deploy.serving.compiled import Compiled, Rows, Runner
from deploy.serving.refusals import Kind, RefusalError
from deploy.serving.waiting import Job, Outputs, Waiting

_log = logging.getLogger("deploy.serving")


@dataclass(frozen=True)
class Run:
    """One run of the engine, for the metrics: what it merged and how long things took."""

    requests: int
    rows: int
    waited_s: Sequence[float]
    took_s: float


class EngineThreads:
    """As many threads as the engine runs inferences at a time, on one queue.

    most_rows: how many rows of several requests become one run; a single request may have more.
    """

    def __init__(
        self, compiled: Compiled, limit: int, most_rows: int, observe: Callable[[Run], None]
    ) -> None:
        self.waiting = Waiting(limit)
        self._rows: Rows = compiled.rows
        self._most_rows = most_rows if compiled.rows == "merge" else 1
        self._observe = observe
        self._threads = [
            threading.Thread(target=self._work, args=(compiled.runner(),), name=f"engine-{i}")
            for i in range(compiled.streams)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Run what waits, then end the threads."""
        self.waiting.close()
        for thread in self._threads:
            thread.join()

    def _work(self, runner: Runner) -> None:
        while jobs := self.waiting.take(self._most_rows):
            started = time.monotonic()
            try:
                results = run_jobs(runner, jobs, self._rows)
            # the engine's own refusal is RuntimeError; whatever else happens, its callers must
            # hear of it and the thread must live on
            except Exception as error:
                _log.error("the engine stopped: %s", one_line(error), exc_info=not _vendor(error))
                reason = f"the engine stopped: {one_line(error)}"
                for job in jobs:
                    job.done(RefusalError(Kind.INTERNAL, reason))
                continue
            for job, outputs in zip(jobs, results, strict=True):
                job.done(outputs)
            took = time.monotonic() - started
            self._observe(
                Run(
                    len(jobs),
                    sum(job.rows for job in jobs),
                    [started - job.since for job in jobs],
                    took,
                )
            )


def run_jobs(runner: Runner, jobs: Sequence[Job], rows: Rows) -> list[Outputs]:
    """The outputs of each job, in order; several jobs have the same key."""
    if len(jobs) == 1:
        job = jobs[0]
        if rows == "split" and job.rows > 1:
            return [_row_by_row(runner, job)]
        return [runner.run(job.feeds)]
    names = jobs[0].feeds
    merged = {name: np.concatenate([job.feeds[name] for job in jobs]) for name in names}
    found = runner.run(merged)
    total = sum(job.rows for job in jobs)
    if any(x.shape[0] != total for x in found.values()):
        # an output whose first dimension isn't the rows, boxes that were found say
        return [runner.run(job.feeds) for job in jobs]
    results = []
    start = 0
    for job in jobs:
        results.append({name: x[start : start + job.rows] for name, x in found.items()})
        start += job.rows
    return results


def _row_by_row(runner: Runner, job: Job) -> Outputs:
    """A request of several rows for an engine that was built for one."""
    parts = []
    for i in range(job.rows):
        if job.dropped:
            break
        parts.append(runner.run({name: x[i : i + 1] for name, x in job.feeds.items()}))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _vendor(error: Exception) -> bool:
    return isinstance(error, RuntimeError)
