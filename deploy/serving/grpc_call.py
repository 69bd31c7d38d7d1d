"""A unary gRPC call on an HTTP/2 stream: one message in, one message or a status out."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from deploy.errors import one_line
from deploy.serving.body import Body, Budget, too_large
from deploy.serving.http2_connection import Connection
from deploy.serving.http2_frames import header_block
from deploy.serving.http2_sending import Stream
from deploy.serving.refusals import Kind, RefusalError, invalid

_log = logging.getLogger("deploy.serving")
# the specification's numbers of the codes that a refusal can have
STATUS = {
    "OK": 0,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "RESOURCE_EXHAUSTED": 8,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
_PREFIX_BYTES = 5
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_BEGIN = {
    b":status": b"200",
    b"content-type": b"application/grpc",
    b"grpc-accept-encoding": b"identity",
}
_HEADERS = header_block(_BEGIN)
_OK = header_block({b"grpc-status": b"0"})
_NO_GRPC = header_block({b":status": b"415"})
_MOST_REASON = 1500


class IncomingMessage:
    """The bytes of a call's one message, filled in place.

    refused: told at once why the message can't be taken.
    """

    def __init__(self, budget: Budget, refused: Callable[[RefusalError], None]) -> None:
        self._budget = budget
        self._refused = refused
        self._prefix = bytearray()
        self._length = 0
        self._body: Body | None = None
        self.refusal: RefusalError | None = None

    def add(self, piece: memoryview) -> None:
        """Take a copy; of what was refused nothing is held."""
        if self._body is None and self.refusal is None:
            missing = _PREFIX_BYTES - len(self._prefix)
            self._prefix += piece[:missing]
            piece = piece[missing:]
            if len(self._prefix) == _PREFIX_BYTES:
                self._begin()
        if self._body is None or self.refusal is not None or not piece:
            return
        if len(piece) > self._length - self._body.filled:
            self.refuse(invalid("more than one message; the procedures here take one"))
            return
        self._body.add(piece)
        self._check()

    def space(self) -> memoryview | None:
        """Room for the rest of the message."""
        return None if self._body is None or self.refusal is not None else self._body.space()

    def took(self, count: int) -> None:
        """So many bytes were written to `space`."""
        assert self._body is not None
        self._body.took(count)
        self._check()

    def data(self) -> memoryview:
        """The whole message; refused when it isn't there."""
        if self._body is None or self._body.filled < self._length:
            raise invalid("the stream ended before its message did")
        return memoryview(self._body.data)

    def refuse(self, refusal: RefusalError) -> None:
        """Take nothing more, and say why."""
        self.refusal = refusal
        self.release()
        self._refused(refusal)

    def release(self) -> None:
        """Give the room back."""
        if self._body is not None:
            self._body.release()

    def _begin(self) -> None:
        self._length = int.from_bytes(self._prefix[1:], "big")
        if self._length > self._budget.most:
            self.refuse(too_large(self._length, self._budget))
        elif self._prefix[0]:
            reason = "the message is compressed; send it as it is"
            self.refuse(RefusalError(Kind.UNIMPLEMENTED, reason))
        else:
            self._body = Body(self._budget, self._length)

    def _check(self) -> None:
        assert self._body is not None
        if self._body.refusal is not None:
            self.refuse(self._body.refusal)


class GrpcCall:
    """One call from its headers on: waits for the message, asks `answer`, sends what comes back.

    answer: the message of the reply to a call whose request is whole; what it raises becomes the
    status.
    """

    def __init__(
        self,
        connection: Connection,
        stream: Stream,
        budget: Budget,
        timeout_s: float,
        answer: Callable[[GrpcCall], Awaitable[bytes]],
    ) -> None:
        self.started = time.monotonic()
        self.headers = stream.headers
        self.sink = IncomingMessage(budget, self.refuse)
        self._connection, self._stream = connection, stream
        self._answer = answer
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._late: asyncio.TimerHandle | None = self._loop.call_later(timeout_s, self._too_late)

    def remaining_s(self) -> float | None:
        """Until the caller's own deadline, more than 0; None without one."""
        given = self.headers.get(b"grpc-timeout")
        if given is None:
            return None
        found = _TIMEOUT.fullmatch(given)
        if found is None:
            shown = given[:20].decode("latin-1")
            raise invalid(f"grpc-timeout {shown!r}; give 1 to 8 digits and one of HMSmun")
        whole = int(found[1]) * _UNITS[found[2]]
        return max(1e-9, whole - (time.monotonic() - self.started))

    def ended(self) -> None:
        """The request is there: answer it."""
        self._in_time()
        if self._task is None and self.sink.refusal is None:
            self._task = self._loop.create_task(self._run())

    def cancelled(self) -> None:
        """Nobody waits for the answer any more."""
        self._in_time()
        if self._task is not None:
            self._task.cancel()
        # a task that was cancelled before its first step ends without its `finally`
        self.sink.release()

    async def _run(self) -> None:
        try:
            data = await self._answer(self)
            prefix = b"\0" + len(data).to_bytes(4, "big")
            self._connection.respond(self._stream, _HEADERS, prefix + data, _OK)
            if self._stream.rest:
                # a peer that keeps its window shut doesn't keep our memory for ever
                self._late = self._loop.call_later(
                    self._timeout_s, self._connection.cut, self._stream
                )
        except RefusalError as refusal:
            self.refuse(refusal)
        # the last resort for what nobody foresaw
        except Exception as error:
            _log.error("internal error: %s", one_line(error), exc_info=True)
            self.refuse(RefusalError(Kind.INTERNAL, "internal error, see the log"))
        finally:
            self.sink.release()

    def refuse(self, refusal: RefusalError) -> None:
        """The reason as gRPC's status."""
        self._in_time()
        refuse(self._connection, self._stream, refusal)

    def _too_late(self) -> None:
        self._late = None
        reason = f"the message didn't arrive within {self._timeout_s:g} s; send it faster"
        self.sink.refuse(RefusalError(Kind.SLOW_BODY, reason))

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def refuse(connection: Connection, stream: Stream, refusal: RefusalError) -> None:
    """An answer that is a status alone."""
    reason = quote(refusal.reason[:_MOST_REASON], safe=" !#$&'()*+,/:;=?@[]<>^`{|}\"\\~")
    fields = {
        b"grpc-status": str(STATUS[refusal.kind.code]).encode(),
        b"grpc-message": reason.encode(),
    }
    connection.refuse(stream, header_block({**_BEGIN, **fields}))


def is_grpc(stream: Stream) -> bool:
    """Whether the request is a gRPC call at all."""
    return stream.headers.get(b":method") == b"POST" and stream.headers.get(
        b"content-type", b""
    ).startswith(b"application/grpc")


def no_grpc(connection: Connection, stream: Stream) -> None:
    """The answer to any other HTTP/2 request."""
    connection.refuse(stream, _NO_GRPC)
