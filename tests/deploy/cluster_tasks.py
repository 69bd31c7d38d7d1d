"""What `test_cluster` has workers do; a module of its own, as they import it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrators.samples import Sample


@dataclass(frozen=True)
class Stored:
    """Samples at hand, in the order asked for; `owner` is the process of the test."""

    samples: Sequence[Sample]
    owner: int

    @property
    def splits(self) -> list[str | None]:
        return [None] * len(self.samples)

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        for index in indices:
            if os.getpid() != self.owner:
                self.elsewhere(index)
            yield self.sample(index)

    def sample(self, index: int) -> Sample:
        return self.samples[index]

    def elsewhere(self, index: int) -> None:
        """What happens when a worker reads a sample."""


@dataclass(frozen=True)
class Logged(Stored):
    """Notes which process reads which sample."""

    log: Path

    def elsewhere(self, index: int) -> None:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {index}\n")


class Here(Stored):
    """Files that lie on the machine of the test only."""

    def elsewhere(self, index: int) -> None:
        raise FileNotFoundError(f"no sample {index}")


class Other(Stored):
    """Another file of the same name elsewhere."""

    def sample(self, index: int) -> Sample:
        found = self.samples[index]
        if os.getpid() == self.owner:
            return found
        return Sample(found.name, {name: x + 1 for name, x in found.feeds.items()}, found.label)


class Unpicklable(Stored):
    """Something that can't travel."""

    def __reduce__(self) -> str:
        raise TypeError("holds an open file")


@dataclass(frozen=True)
class Deadly(Stored):
    """The first `kills` processes that read sample `at` say so, and wait to be killed.

    They write their process id to the pipe `waiting`, and then read one that nobody writes to.
    """

    folder: Path
    kills: int
    at: int

    def elsewhere(self, index: int) -> None:
        if index != self.at:
            return
        for number in range(self.kills):
            try:
                (self.folder / f"victim{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            with (self.folder / "waiting").open("w") as pipe:
                pipe.write(f"{os.getpid()}\n")
            (self.folder / "never").read_bytes()


def process(shared: bytes, shard: int) -> tuple[bytes, int, int]:
    return shared, shard, os.getpid()


def failing(shared: bytes, shard: int) -> int:
    if shard:
        raise OSError(f"shard {shard} of {shared.decode()}")
    return shard


def held(shared: bytes, shard: int) -> int:
    """Waits, except for the first one, until nobody else has locked the file; others run on the
    worker meanwhile, so that the first one is not behind those that wait."""
    if shard:
        from distributed import secede

        secede()
        with Path(shared.decode()).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    return shard


def after(lock: str) -> bytes:
    """The lock's name, once nobody else has it."""
    with Path(lock).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    return lock.encode()


def noted(lock: bytes, shard: int) -> int:
    """Adds the shard to the file that was locked."""
    with Path(lock.decode()).open("a") as file:
        file.write(f"{shard} ")
    return shard


def pretend(name: str, version: str | None) -> None:
    """From now on this worker has another version of a package; None: the true one again."""
    from importlib import metadata

    from deploy.cluster import fitness

    fitness.version = (  # type: ignore[attr-defined]
        metadata.version
        if version is None
        else lambda asked: version if asked == name else metadata.version(asked)
    )


def own_pid() -> int:
    return os.getpid()


def status(dask_worker: Any) -> str:
    """Of the worker's nanny, where this is run there."""
    return str(dask_worker.status.name)
