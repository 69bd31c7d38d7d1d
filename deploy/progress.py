"""What a build says while it works: to nobody here, to a terminal in `deploy.cli`."""

from __future__ import annotations


class Progress:
    """Hears of every stage; this one keeps quiet."""

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins; `total` samples will be worked through, if it knows."""

    def advance(self, count: int) -> None:
        """So many more samples of the current stage are done."""

    def done(self, stage: str, result: str, *, reused: bool) -> None:
        """A stage ended, with its result in words."""

    def caution(self, text: str) -> None:
        """Something the user should look at, in one line; the build goes on."""

    def close(self) -> None:
        """Nothing more will come: the build ended, or an error did it."""


class Noted(Progress):
    """Passes everything on, and keeps what was cautioned of, in its order and once each."""

    def __init__(self, hearer: Progress) -> None:
        self.hearer = hearer
        self.cautions: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None:
        self.hearer.start(stage, total)

    def advance(self, count: int) -> None:
        self.hearer.advance(count)

    def done(self, stage: str, result: str, *, reused: bool) -> None:
        self.hearer.done(stage, result, reused=reused)

    def caution(self, text: str) -> None:
        if text not in self.cautions:
            self.cautions.append(text)
        self.hearer.caution(text)

    def close(self) -> None:
        self.hearer.close()
