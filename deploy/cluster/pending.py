"""One task under way: offered to workers, offered again when they are gone, and its result."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from deploy.errors import BuildError, DeployError, one_line

# how often lost workers are looked for; finished tasks are noticed at once
LOOK_S = 0.25
# how often a task is handed to other workers after all it was offered to are gone
_TRIES = 4
_TAKEN_DOWN = (
    "it takes them down, most likely for memory or in the vendor's library; see their logs, and "
    "run it without --workers to see it alone"
)
_ELSEWHERE = "see its log; scheduler and workers need this environment, onnx-deploy[cluster] in it"


class Pending:
    """A call of `(function, *arguments)`, and the workers it was offered to."""

    def __init__(self, uri: str, call: tuple[Any, ...]) -> None:
        self.uri = uri
        self.call = call
        self.offered: set[str] = set()
        self.tries = 0
        self.future: Any = None
        self.result: Any = None
        self._patience_s = 4 * LOOK_S

    def see_to_it(self, client: Any, fit: set[str]) -> None:
        """Submit it; again when every worker it was offered to is gone, or Dask lost it.

        BuildError when that goes on: it is the task, then, that takes its workers down.
        """
        if self.future is not None and not self._lost(fit):
            return
        self.drop()
        if self.tries == _TRIES:
            raise BuildError(
                f"{self.uri}: a task lost all its workers {_TRIES} times; {_TAKEN_DOWN}"
            )
        self.tries += 1
        self.offered = set(fit)
        # Dask keeps no order among calls handed in within its `fifo_timeout`: with the shared model
        # still on its way, the shard wanted first might run last
        self.future = client.submit(
            *self.call, pure=False, workers=sorted(fit), fifo_timeout="0 ms"
        )

    def _lost(self, fit: set[str]) -> bool:
        if self.future.status == "pending":
            return not self.offered & fit
        return self.future.status in ("lost", "cancelled")

    def drop(self) -> None:
        """It is no longer wanted."""
        if self.future is not None:
            self.future.cancel()

    def arrived(self) -> bool:
        """Wait for it a while; whether `result` is there. An error of the task is raised.

        A result is lost with its worker until it is here, and Dask would then wait for the workers
        the task was offered to: nothing waits without looking at them in between.
        """
        try:
            error = self.future.exception(timeout=LOOK_S)
            if self.future.status != "finished":
                self._raise(error)
                return False
            self.result = self.future.result(timeout=self._patience_s)
        except TimeoutError:
            if self.future.status == "finished":
                # it may be large: more time for the next attempt
                self._patience_s *= 2
            return False
        except CancelledError:
            return False
        return True

    def _raise(self, error: BaseException | None) -> None:
        """The task's own error as it is when it is one of ours, else as BuildError."""
        if error is None or self.future.status != "error":
            return
        if isinstance(error, DeployError):
            raise error
        kind = type(error).__name__
        advice = _TAKEN_DOWN if kind == "KilledWorker" else _ELSEWHERE
        raise BuildError(
            f"{self.uri}: a task failed on a worker: {kind}: {one_line(error)}; {advice}"
        )


@contextmanager
def reached(uri: str) -> Iterator[None]:
    """BuildError where the connection breaks."""
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"{uri}: the scheduler no longer answers: {one_line(error)}; start it again and run "
            "the same command, finished stages are kept"
        ) from None
