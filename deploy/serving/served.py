"""The model that is served: the version of the moment, and how the next one takes its place."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy.artifacts.bundle import MANIFEST
from deploy.errors import BundleError
from deploy.serving.bundle_check import check
from deploy.serving.compiled import Compiled
from deploy.serving.engine_threads import EngineThreads, Run
from deploy.serving.heap import give_back
from deploy.serving.merge_check import most_rows
from deploy.serving.options import Options
from deploy.serving.ports import Port, check_same_rows
from deploy.serving.refusals import Kind, RefusalError
from deploy.serving.waiting import Job, Outputs

_log = logging.getLogger("deploy.serving")


class Version:
    """A verified bundle, compiled, warm and with its threads; leased by every request it serves."""

    def __init__(self, options: Options, number: int, observe: Callable[[Run], None]) -> None:
        folder = version_folder(options.bundle)[1]
        checked = check(
            folder,
            allow_failed=options.allow_failed,
            allow_libraries=options.allow_libraries,
        )
        self.number = str(number)
        self.name = options.name or checked.name
        self.digest = checked.digest
        self.precision = checked.precision
        compiled = Compiled(checked, threads=options.threads, streams=options.streams)
        self.inputs: tuple[Port, ...] = compiled.inputs
        self.outputs: tuple[Port, ...] = compiled.outputs
        self.most_rows = most_rows(compiled, checked.samples, options.max_batch)
        self.streams = compiled.streams
        if compiled.rows == "split":
            # what was built for one row is run row by row
            self.inputs = _any_rows(self.inputs)
            self.outputs = _any_rows(self.outputs)
        self._rows = compiled.rows
        self._threads = EngineThreads(compiled, options.queue, self.most_rows, observe)
        give_back()
        self._leases = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @contextmanager
    def lease(self) -> Iterator[Version]:
        """Held while a request is handled; `close` waits for the last one."""
        self._leases += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._leases -= 1
            if not self._leases:
                self._unused.set()

    def waiting(self) -> int:
        """How many requests wait for the engine."""
        return len(self._threads.waiting)

    async def infer(self, feeds: Mapping[str, np.ndarray], deadline: float) -> Outputs:
        """All outputs; RefusalError when the queue is full or the deadline (time.monotonic)
        passes first."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outputs] = loop.create_future()

        def done(result: Outputs | BaseException) -> None:
            loop.call_soon_threadsafe(_settle, future, result)

        rows = 1 if self._rows == "fixed" else check_same_rows(feeds)
        key = tuple(x.shape[1:] for x in feeds.values())
        job = Job(feeds, rows, key, deadline, done)
        self._threads.waiting.put(job)
        timer = loop.call_later(max(0.0, deadline - time.monotonic()), _expire, future)
        try:
            return await future
        finally:
            timer.cancel()
            job.dropped = True

    async def close(self) -> None:
        """Wait until no request uses it, then give the engine back."""
        await self._unused.wait()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._threads.close()
        # with its last reference the engine is gone
        del self._threads
        give_back()


class Served:
    """One name, one version at a time; `reload` swaps it without losing a request."""

    def __init__(self, options: Options, observe: Callable[[Run], None]) -> None:
        self._options = options
        self._observe = observe
        self._reloading = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self.version = Version(options, version_folder(options.bundle)[0] or 1, observe)
        self.name = self.version.name
        self._options = replace(options, name=self.name)

    def named(self, name: str, version: str = "") -> Version:
        """The version a request asks for; refused (404) with what there is."""
        if name != self.name:
            raise RefusalError(
                Kind.NOT_FOUND, f"no model {name[:100]!r}; this server has {self.name!r}"
            )
        if version and version != self.version.number:
            raise RefusalError(
                Kind.NOT_FOUND,
                f"no version {version[:40]!r} of {self.name!r}; {self.version.number} is served",
            )
        return self.version

    async def reload(self) -> Version:
        """Take the bundle that is there now; on an error (DeployError) the old one stays."""
        async with self._reloading:
            old = self.version
            found, folder = version_folder(self._options.bundle)
            number = found or int(old.number) + 1
            _log.info("loading version %d from %s", number, folder)
            new = await asyncio.to_thread(Version, self._options, number, self._observe)
            try:
                _check_same_ports(old, new, folder)
            except BundleError:
                await new.close()
                raise
            self.version = new
            _log.info("version %s of %s is served", new.number, self.name)
            task = asyncio.create_task(old.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            return new

    async def close(self) -> None:
        """Wait for what is under way, then end all threads."""
        async with self._reloading:
            await asyncio.gather(self.version.close(), *self._closing)


def version_folder(bundle: Path) -> tuple[int | None, Path]:
    """The bundle to serve and its number: itself, or the highest of a folder's 1/, 2/, …"""
    if (bundle / MANIFEST).exists() or not bundle.is_dir():
        return None, bundle
    numbered = [p for p in bundle.iterdir() if p.name.isascii() and p.name.isdigit() and p.is_dir()]
    if not numbered:
        return None, bundle
    newest = max(numbered, key=lambda p: int(p.name))
    return int(newest.name), newest


def _check_same_ports(old: Version, new: Version, folder: Path) -> None:
    """BundleError unless clients of the old version can go on as they do: the same names, types
    and shapes, save that any number of rows may be taken where it was fixed."""
    sides = ((old.inputs, new.inputs), (old.outputs, new.outputs))
    if not all(_takes_over(*side) for side in sides):
        raise BundleError(
            f"{folder}: version {new.number} is {_signature(new)}; version {old.number}, which is "
            f"served, is {_signature(old)}; serve another model by a server of its own"
        )


def _takes_over(old: tuple[Port, ...], new: tuple[Port, ...]) -> bool:
    given, found = ({port.name: port for port in ports} for ports in (old, new))
    return given.keys() == found.keys() and all(
        found[name].kind == port.kind
        and len(found[name].shape) == len(port.shape)
        and found[name].shape[1:] == port.shape[1:]
        and found[name].shape[:1] in (port.shape[:1], (None,))
        for name, port in given.items()
    )


def _signature(version: Version) -> str:
    return f"{_listed(version.inputs)} -> {_listed(version.outputs)}"


def _listed(ports: tuple[Port, ...]) -> str:
    rows = (
        (p.name, p.kind.name, ", ".join("any" if d is None else str(d) for d in p.shape))
        for p in ports
    )
    return ", ".join(f"{name} {kind} [{dims}]" for name, kind, dims in rows)


def _any_rows(ports: tuple[Port, ...]) -> tuple[Port, ...]:
    return tuple(replace(port, shape=(None, *port.shape[1:])) for port in ports)


def _settle(future: asyncio.Future[Outputs], result: Outputs | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _expire(future: asyncio.Future[Outputs]) -> None:
    if not future.done():
        late = RefusalError(Kind.EXPIRED, "the engine didn't answer before the deadline")
        future.set_exception(late)
