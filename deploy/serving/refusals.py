"""Why a request gets no result: one reason, its HTTP status and its gRPC code."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What is wrong, as (HTTP status, name of the gRPC status code)."""

    INVALID = (400, "INVALID_ARGUMENT")
    UNAUTHENTICATED = (401, "UNAUTHENTICATED")
    NOT_FOUND = (404, "NOT_FOUND")
    SLOW_BODY = (408, "DEADLINE_EXCEEDED")
    TOO_LARGE = (413, "RESOURCE_EXHAUSTED")
    ENCODED = (415, "INVALID_ARGUMENT")
    INTERNAL = (500, "INTERNAL")
    UNIMPLEMENTED = (501, "UNIMPLEMENTED")
    # Triton answers a full queue with the same two
    BUSY = (503, "UNAVAILABLE")
    EXPIRED = (504, "DEADLINE_EXCEEDED")

    @property
    def status(self) -> int:
        return self.value[0]

    @property
    def code(self) -> str:
        return self.value[1]


class RefusalError(Exception):
    """A request that is answered with its reason: what was observed, then what is allowed."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def invalid(reason: str) -> RefusalError:
    """The caller's mistake: HTTP 400, INVALID_ARGUMENT."""
    return RefusalError(Kind.INVALID, reason)
