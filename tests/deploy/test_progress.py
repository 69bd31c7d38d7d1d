"""Who hears of a build, and what is kept of it."""

from __future__ import annotations

from typing import Any

from deploy.progress import Noted, Progress


class Hears(Progress):
    """Every call as it came."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def start(self, stage: str, total: int | None = None) -> None:
        self.heard.append(("start", stage, total))

    def advance(self, count: int) -> None:
        self.heard.append(("advance", count))

    def done(self, stage: str, result: str, *, reused: bool) -> None:
        self.heard.append(("done", stage, result, reused))

    def caution(self, text: str) -> None:
        self.heard.append(("caution", text))

    def close(self) -> None:
        self.heard.append(("close",))


def test_noted_passes_everything_on_and_keeps_cautions_once() -> None:
    hears = Hears()
    noted = Noted(hears)
    noted.start("fuse", 3)
    noted.advance(2)
    noted.done("fuse", "done", reused=True)
    for text in ("b", "a", "b"):
        noted.caution(text)
    noted.close()
    assert noted.cautions == ["b", "a"]
    assert hears.heard == [
        ("start", "fuse", 3),
        ("advance", 2),
        ("done", "fuse", "done", True),
        *(("caution", text) for text in ("b", "a", "b")),
        ("close",),
    ]
