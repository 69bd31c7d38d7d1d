"""The parity ladder as `deploy parity BUNDLE` prints it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from deploy.artifacts.ladder import Ladder, Rung


def print_ladder(found: Ladder) -> None:
    """One line per rung, and what went wrong below."""
    for line in lines(found):
        click.echo(line)


def lines(found: Ladder) -> Iterable[str]:
    """Each rung against the first one, what its own stage lost and may lose."""
    yield f"ladder on {found.samples} samples ({found.about})"
    for rung in found.rungs[1:]:
        state = "ok" if rung.passed else "MISSED" if rung.sound else "WRONG"
        own = f"own {_db(rung.own_db)}, at least {rung.allowed_db:.1f}"
        yield f"{state:<7}{rung.name:<12}{_db(rung.worst_db):>10}   {rung.stage}: {own}"
        yield from _why(rung)
    yield found.verdict()


def _why(rung: Rung) -> Iterable[str]:
    for culprit in rung.culprits[:3]:
        yield f"       at {culprit.node}: {culprit.why}"
    for out in rung.outputs:
        if not out.passed:
            needs = f"needs {out.limit_db:g} ({out.limit_from})"
            yield f"       output {out.figures.tensor!r}: {_db(out.figures.sqnr_db)}, {needs}"


def _db(value: float) -> str:
    return "identical" if value >= 200 else f"{value:.1f} dB"
