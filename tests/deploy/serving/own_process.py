"""A server in a process of its own, and what it logs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GATED = """
import sys
from deploy.serving.compiled import Runner
run = Runner.run
def held(self, feeds):
    if runs:
        print("running", flush=True)
        sys.stdin.readline()
    return run(self, feeds)
runs = []
Runner.run = held
from deploy.serving import lifecycle
announce = lifecycle.Server._announce
def ready(self, ports):
    runs.append(1)
    announce(self, ports)
lifecycle.Server._announce = ready
from deploy.serving.__main__ main
""".replace("__main__ main", "__main__ import main\nsys.exit(main(sys.argv[1:]))")


@contextmanager
def process(*arguments: object, gated: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A server of its own; gated, its engine waits for a line after saying `running`."""
    how = ["-c", GATED] if gated else ["-m", "deploy.serving"]
    command = [sys.executable, *how, *map(str, arguments)]
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as server:
        try:
            yield server
        finally:
            server.kill()


class Logged:
    """What the process says: its JSON lines, one by one."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server
        self.ports = self
        found = self.until("ready")
        self.http, self.grpc, self.name = found["http_port"], found["grpc_port"], found["model"]

    def until(self, wanted: str) -> dict[str, Any]:
        assert self._server.stderr
        for line in self._server.stderr:
            found: dict[str, Any] = json.loads(line)
            if wanted in found["message"]:
                return found
        raise AssertionError(f"never said {wanted!r}")
