"""An engine that waits until it is told to go on, so that tests can look at a busy server."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from asked import ask

from deploy.serving.compiled import Runner


class Gate:
    """Holds every run of the engine until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Semaphore(0)
        self._open = threading.Event()
        run = Runner.run

        def held(runner: Runner, feeds: Any) -> Any:
            self.entered.release()
            assert self._open.wait(30)
            return run(runner, feeds)

        monkeypatch.setattr(Runner, "run", held)

    def wait(self, count: int = 1) -> None:
        """Until so many runs have begun."""
        for _ in range(count):
            assert self.entered.acquire(timeout=30)

    def open(self) -> None:
        self._open.set()


def until(running: Any, count: int) -> None:
    """Until so many requests wait for the engine, as its own figures say."""
    wanted = f"deploy_queue_requests {count}.0"
    while wanted not in ask(running, "GET", "/metrics").body.decode():
        pass
