"""Dask workers, of this machine or of a cluster, and tasks handed to them in order.

A script that starts `local:N` needs the usual `if __name__ == "__main__":`, as its processes import
it again. Ctrl-C or an error drops what waits; a task that a worker is in the middle of ends there.
"""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from deploy.cluster import fitness
from deploy.cluster.fitness import Needs
from deploy.cluster.pending import LOOK_S, Pending, reached
from deploy.errors import BuildError, MissingBackendError, RecipeError, one_line

S = TypeVar("S")
R = TypeVar("R")
Task = Callable[[bytes, S], R]

_FORM = re.compile(r"local:(?P<count>[1-9][0-9]*)|(?P<scheme>dask|tls)://(?P<host>[^/\s]+:[0-9]+)")
# tasks per worker that are under way: one runs, the next one's data has come already
_AHEAD = 2
# workers named in a message
_LISTED = 4


@dataclass(frozen=True)
class Workers:
    """A context manager; inside it, `map` runs tasks on every worker that is fit for them.

    timeout_s: how long to wait for a scheduler, and for a worker that fits while there is none.
    """

    uri: str
    timeout_s: float = 60.0
    _open: _Open = field(default_factory=lambda: _Open(), init=False, repr=False, compare=False)

    @classmethod
    def parse(cls, uri: str, timeout_s: float = 60.0) -> Self:
        """From `local:N`, `dask://host:port` or `tls://host:port`; RecipeError for anything else.

        TLS files, timeouts and the like are Dask's own settings (its YAML files, `DASK_…`).
        """
        if not _FORM.fullmatch(uri):
            raise RecipeError(
                f"--workers {uri!r}: give local:N for N processes of this machine, or the "
                "scheduler, dask://host:port or tls://host:port"
            )
        return cls(uri, timeout_s)

    def __enter__(self) -> Self:
        distributed = _distributed()
        with ExitStack() as stack:
            import dask

            # a model travels in its task, so that it can be sent again when a worker is lost
            quiet = {"distributed.admin.large-graph-warning-threshold": "1TiB"}
            stack.enter_context(dask.config.set(quiet))
            address = self._address(stack, distributed)
            self._open.client = stack.enter_context(self._connect(address, distributed))
            self._open.stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.client = None
        self._open.stack.close()

    def count(self) -> int:
        """How many workers there are now."""
        return len(self._open.known())

    def map(
        self, task: Task[S, R], shared: bytes, shards: Iterable[S], needs: Needs
    ) -> Iterator[R]:
        """`task(shared, shard)` of every shard, in order; `shared` is sent once.

        shards: taken as workers become free. A task whose worker is lost runs again elsewhere; an
        error of a task is raised here. BuildError when no worker fits for `timeout_s`.
        """
        client = self._open.connected()
        source = iter(shards)
        # a task, not scattered: lost with its worker, it's made again from what the scheduler has
        with reached(self.uri):
            common = client.submit(bytes, shared, pure=False)
        crew = _Crew(self, needs)
        pending: deque[Pending] = deque()
        try:
            while True:
                fit = crew.fit()
                while len(pending) < _AHEAD * len(fit):
                    shard = next(source, _NO_MORE)
                    if shard is _NO_MORE:
                        break
                    pending.append(Pending(self.uri, (task, common, shard)))
                if not pending:
                    return
                with reached(self.uri):
                    for one in pending:
                        one.see_to_it(client, fit)
                    arrived = pending[0].arrived()
                if arrived:
                    yield pending.popleft().result
        finally:
            for one in pending:
                one.drop()

    def _address(self, stack: ExitStack, distributed: Any) -> str:
        match = _FORM.fullmatch(self.uri)
        assert match is not None  # parse has seen to it
        if match["scheme"]:
            return f"{'tls' if match['scheme'] == 'tls' else 'tcp'}://{match['host']}"
        import dask

        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="onnx-deploy-"))
        own = {
            "temporary-directory": scratch,
            # a process that ends is followed by another; Dask would drop its place if, so long
            # after one end, it happens to be down again
            "distributed.deploy.lost-worker-timeout": "1000h",
        }
        stack.enter_context(dask.config.set(own))
        try:
            cluster = distributed.LocalCluster(
                n_workers=int(match["count"]),
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                # it has an HTTP port even so: any that is free
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                local_directory=scratch,
                # what a killed process leaves goes with the rest
                env={"TMPDIR": scratch},
                # as for the single process: no limit of its own, nothing spilled to disk
                memory_limit=0,
                silence_logs=logging.ERROR,
                # whatever Dask is configured to: this cluster is only for this process
                protocol="tcp://",
                security=distributed.Security(require_encryption=False),
            )
        except (OSError, RuntimeError) as error:
            raise BuildError(
                f"{self.uri}: the processes did not start: {one_line(error)}; give fewer, or leave "
                "out --workers"
            ) from None
        address: str = stack.enter_context(cluster).scheduler_address
        return address

    def _connect(self, address: str, distributed: Any) -> Any:
        security = distributed.Security(require_encryption=False) if _is_local(self.uri) else None
        try:
            return distributed.Client(
                address, timeout=self.timeout_s, set_as_default=False, security=security
            )
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            tls = (
                "; give Dask's tls settings (ca-file, and client cert and key)"
                if address.startswith("tls")
                else ""
            )
            raise BuildError(
                f"{self.uri}: no scheduler answers there: {one_line(error)}; start one with "
                f"`dask scheduler` and check host and port{tls}"
            ) from None


class _Open:
    """What a connection holds."""

    def __init__(self) -> None:
        self.client: Any = None
        self.stack = ExitStack()

    def connected(self) -> Any:
        """Dask's client."""
        if self.client is None:
            raise BuildError("the workers are not connected; use `with Workers.parse(…)`")
        return self.client

    def known(self) -> list[str]:
        """The workers' addresses, as the scheduler has them now."""
        return sorted(self.connected().nthreads())


class _Crew:
    """The workers that fit, looked at again whenever workers come and go."""

    def __init__(self, workers: Workers, needs: Needs) -> None:
        self.workers = workers
        self.needs = needs
        self.here = fitness.facts()
        self.reasons: dict[str, str | None] = {}

    def fit(self) -> set[str]:
        """Addresses; BuildError when there is none until the time is up."""
        until = time.monotonic() + self.workers.timeout_s
        while True:
            with reached(self.workers.uri):
                known = self.workers._open.known()
                self._look_at([address for address in known if address not in self.reasons])
            fit = {address for address in known if self.reasons[address] is None}
            if fit:
                return fit
            if time.monotonic() >= until:
                raise BuildError(self._none(known))
            time.sleep(min(LOOK_S, self.workers.timeout_s))

    def _look_at(self, addresses: list[str]) -> None:
        if not addresses:
            return
        client = self.workers._open.client
        found = client.run(fitness.facts, workers=addresses, on_error="return")
        for address in addresses:
            there = found.get(address)
            if isinstance(there, dict):
                self.reasons[address] = fitness.why_not(self.here, there, self.needs)
            else:
                reason = one_line(there or "no answer", 100)
                self.reasons[address] = f"onnx-deploy doesn't run there: {reason}"

    def _none(self, known: list[str]) -> str:
        rows = [f"{address}: {self.reasons[address]}" for address in known[:_LISTED]]
        more = f"; and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
        seen = "; ".join(rows) + more if rows else "the scheduler has no workers"
        return (
            f"{self.workers.uri}: no worker fits after {self.workers.timeout_s:g} s ({seen}); "
            "start workers from an environment like this one, with onnx-deploy[cluster]"
        )


_NO_MORE: Any = object()


def _is_local(uri: str) -> bool:
    return uri.startswith("local:")


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingBackendError(
            f"Dask isn't installed ({error}); pip install 'onnx-deploy[cluster]'"
        ) from None
    return distributed
