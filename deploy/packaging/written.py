"""What a format made: what to run with it, and what to know about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Written:
    """command: starts the server on the folder. notes: what differs from the bundle, in words.
    facts: for package.json."""

    command: str
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
