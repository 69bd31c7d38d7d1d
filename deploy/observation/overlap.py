"""Work on samples while the next ones are being read: as many threads as there are cores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from calibrators.samples import Sample
from deploy.artifacts.model import TensorSpec
from deploy.backends import reference
from deploy.batches import batches

Work = Callable[[list[Sample], int], None]


def overlapped(
    samples: Iterable[Sample],
    inputs: Sequence[TensorSpec],
    work: Work,
    advance: Callable[[int], None] = lambda count: None,
) -> int:
    """How many samples were worked on: each group that one run takes once, in no fixed order.

    samples: read once, one at a time, by whichever thread is free. What fails is raised for the
    first of the samples that fail, as if they had been taken in order.
    """
    queue = _Queue(samples, inputs, work, advance)
    workers = reference.cores()
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(queue.drain) for _ in range(workers)]:
            done.result()
    if queue.failed:
        raise min(queue.failed, key=lambda failure: failure[0])[1]
    return queue.count


class _Queue:
    """Groups of samples, handed out one at a time."""

    def __init__(
        self,
        samples: Iterable[Sample],
        inputs: Sequence[TensorSpec],
        work: Work,
        advance: Callable[[int], None],
    ) -> None:
        self.groups = batches(samples, inputs)
        self.work = work
        self.advance = advance
        self.lock = threading.Lock()
        self.taken = 0
        self.count = 0
        self.failed: list[tuple[int, BaseException]] = []

    def drain(self) -> None:
        """Take and work until nothing is left or something failed."""
        while True:
            with self.lock:
                if self.failed:
                    return
                index = self.taken
                self.taken += 1
                try:
                    group = next(self.groups, None)
                # a dataset is anybody's code: whatever it raises is raised again by the caller
                except BaseException as error:
                    self.failed.append((index, error))
                    return
            if group is None:
                return
            try:
                self.work(*group)
            except BaseException as error:
                with self.lock:
                    self.failed.append((index, error))
                return
            with self.lock:
                self.count += len(group[0])
                self.advance(len(group[0]))
