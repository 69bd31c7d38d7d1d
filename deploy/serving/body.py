"""The bytes of the requests under way: bounded one by one and all together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from deploy.serving.refusals import Kind, RefusalError

# of a cache line, which is more than any number needs
_ALIGNMENT = 64


class Budget:
    """How much all requests hold, and how much they may.

    most: of one request; most_together: of all.
    """

    def __init__(self, most: int, most_together: int) -> None:
        self.most = most
        self.most_together = most_together
        self.held = 0

    def excess(self, own: int) -> RefusalError | None:
        """The refusal of a request that holds `own` bytes: itself too large, or one too many."""
        if own > self.most:
            return too_large(own, self)
        if self.held > self.most_together:
            return RefusalError(
                Kind.BUSY,
                f"the requests under way hold {self.held} bytes already; try again later",
            )
        return None

    @contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """The room of a request that came whole; refused when there is none."""
        self.held += count
        try:
            refusal = self.excess(count)
            if refusal is not None:
                raise refusal
            yield
        finally:
            self.held -= count


class Body:
    """One request's body, filled in place as it arrives; `release` gives its room back.

    declared: how many bytes the sender announced, None when it didn't; never more than
    `Budget.most`.
    """

    def __init__(self, budget: Budget, declared: int | None = None) -> None:
        self._budget = budget
        self._counted = 0
        self.data: bytearray | memoryview = (
            bytearray() if declared is None else _aligned_end(declared)
        )
        self.filled = 0
        self.refusal: RefusalError | None = None
        self._released = False

    def add(self, piece: bytes | memoryview) -> None:
        """Take some more; what is refused (413 or 503) is remembered and holds nothing."""
        end = self.filled + len(piece)
        if self._count(len(piece)):
            # beyond what a bytearray holds it appends
            self.data[self.filled : end] = piece
            self.filled = end

    def space(self) -> memoryview:
        """Where the rest of an announced body goes: write there, then say `took`. Empty once
        something was refused."""
        return memoryview(self.data)[self.filled :]

    def took(self, count: int) -> None:
        """So many bytes were written to `space`; refused like those of `add`."""
        if self._count(count):
            self.filled += count

    def release(self) -> None:
        """Give the room back; the data is gone, and nothing is counted any more."""
        self._released = True
        self._budget.held -= self._counted
        self._counted = 0
        # not cleared: an array may still look at it
        self.data = bytearray()
        self.filled = 0

    def _count(self, more: int) -> bool:
        if self.refusal is not None or self._released:
            return False
        self._counted += more
        self._budget.held += more
        self.refusal = self._budget.excess(self._counted)
        if self.refusal is not None:
            self.release()
        return self.refusal is None


def _aligned_end(size: int) -> memoryview:
    """Room whose end is aligned: a tensor comes last, and the engine takes it as it lies only where
    its numbers are aligned. Memory that nobody touched isn't there yet."""
    block = np.empty(size + _ALIGNMENT, np.uint8)
    start = -(block.ctypes.data + size) % _ALIGNMENT
    return memoryview(block)[start : start + size]  # type: ignore[arg-type]


def too_large(size: int, budget: Budget) -> RefusalError:
    """413 with the limit."""
    return RefusalError(
        Kind.TOO_LARGE,
        f"a request of {size} bytes or more; at most {budget.most} are taken (--max-request-bytes)",
    )
