"""What a person sees: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from deploy.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

# where --json writes, kept in click's context
JSON_STREAM = "deploy.json_stream"


class Terminal(Progress):
    """One line per finished stage, and a bar meanwhile where standard error is a terminal."""

    def __init__(self) -> None:
        self.started = 0.0
        self.bar: Bar | None = None
        self.task: TaskID | None = None

    def start(self, stage: str, total: int | None = None) -> None:
        self._stop()
        self.started = time.perf_counter()
        # rich costs more to import than a short command takes: only where there's one to watch
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar

            self.bar = Bar(console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task(f"  {stage}", total=total)
            self.bar.start()

    def advance(self, count: int) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.advance(self.task, count)

    def done(self, stage: str, result: str, *, reused: bool) -> None:
        self._stop()
        seconds = time.perf_counter() - self.started
        when = "reused" if reused else f"{seconds:.1f} s"
        click.echo(f"  {stage:<11} {result}  ({when})", err=True)

    def caution(self, text: str) -> None:
        self._stop()
        click.echo(f"  warning     {text}", err=True)

    def close(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on one line, alone on standard output (`options.json_option`)."""
    stream = click.get_current_context().meta[JSON_STREAM]
    click.echo(json.dumps(value, sort_keys=True, allow_nan=False), file=stream)
