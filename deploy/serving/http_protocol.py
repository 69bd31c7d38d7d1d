"""uvicorn's HTTP parser with what it leaves open: a limit on headers, a limit on their arrival, and
a body that is taken in large pieces."""

from __future__ import annotations

import asyncio
import json
from asyncio import TimerHandle
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deploy.serving.body import Body, Budget

MOST_HEADER_BYTES = 32 << 10
_PIECE_BYTES = 1 << 16
HEADER_TIMEOUT_S = 20.0
# the key of a request's `Body` in the state of its ASGI scope
BODY = "deploy.body"


def limited_protocol(budget: Budget) -> Callable[..., asyncio.BaseProtocol]:
    """What makes a connection's protocol, whose bodies count against a budget."""

    def make(*args: Any, **kwargs: Any) -> asyncio.BaseProtocol:
        return DirectProtocol(LimitedProtocol(budget, *args, **kwargs))

    return make


class DirectProtocol(asyncio.BufferedProtocol):
    """Reads from the socket straight into the body that is arriving; all else goes to uvicorn's
    protocol in pieces, as it wants it."""

    def __init__(self, inner: LimitedProtocol) -> None:
        self._inner = inner
        self._space = memoryview(bytearray(_PIECE_BYTES))
        self._in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(cast(asyncio.Transport, transport))

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def eof_received(self) -> None:
        self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio asks where the next bytes go."""
        left = self._inner.left
        self._in_body = bool(left)
        # of a body that was refused the rest is read and dropped
        return ((self._inner.space() or self._space) if left else self._space)[: left or None]

    def buffer_updated(self, count: int) -> None:
        """asyncio has put so many bytes there."""
        if self._in_body:
            self._inner.body_received(count)
        else:
            self._inner.data_received(bytes(self._space[:count]))


class HeadWithBody:
    """One answer's way to the transport: its head waits for the body, so that both are one packet
    and one system call."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._sent = False

    def write(self, data: bytes) -> None:
        """The head at first, then what follows it."""
        if self._sent:
            self._transport.write(data)
        elif self._head is None:
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._sent = True

    def flush(self) -> None:
        """Send a head that has no body."""
        if self._head is not None and not self._sent:
            self.write(b"")

    def close(self) -> None:
        """Send what there is, then close."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """As the transport says."""
        return self._transport.is_closing()


class LimitedProtocol(HttpToolsProtocol):
    """Refuses (431) headers beyond MOST_HEADER_BYTES, drops a connection whose headers take longer
    than HEADER_TIMEOUT_S, and leaves a body of announced length to be filled in place.

    uvicorn hands a body over in pieces, each copied four times and each with a turn of the event
    loop; such a body isn't copied at all and its task is woken once.
    """

    def __init__(self, budget: Budget, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.budget = budget
        # what of an announced body comes past the parser
        self.left = 0
        # the body that is arriving, and the one of the request that is being answered
        self._filling: Body | None = None
        self._missing = 0
        self._open: Body | None = None
        self._head_bytes = 0
        self._in_head = True
        self._refused = False
        self._late: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late = self.loop.call_later(HEADER_TIMEOUT_S, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_late()
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        # a header of which no end was seen isn't counted by `on_header`
        if self._in_head and not self._refused:
            self._head_bytes += len(data)
            self._check_head()
        if self._filling is not None and self._missing and not self._refused:
            # the parser saw the headers and the beginning; it is no use for the rest
            self.left = self._missing

    def space(self) -> memoryview:
        """Where the rest of the body goes; empty when nobody wants it any more."""
        return self._filling.space() if self._filling is not None else memoryview(b"")

    def body_received(self, count: int) -> None:
        """So many bytes of the body came, to `space` or to nowhere."""
        self.left -= count
        if self._filling is not None:
            self._filling.took(count)
        if not self.left:
            self._missing = 0
            self.parser = _parser(self)
            self.on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse("400 Bad Request", msg)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        if self._late is None:
            self._late = self.loop.call_later(HEADER_TIMEOUT_S, self._too_late)

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._clear_late()
        self._in_head = False
        self._check_head()
        if self._refused:
            return
        self._filling = None
        declared = self._declared()
        # a request sent before the last one was answered waits, and its body with it
        if declared and (self.cycle is None or self.cycle.response_complete):
            self._filling = self._open = Body(self.budget, declared)
            self._missing = declared
            self.scope["state"][BODY] = self._filling
        super().on_headers_complete()
        # "100 Continue" comes before the head and can't wait
        if not self.expect_100_continue:
            answer = HeadWithBody(self.transport)
            self.cycle.transport = cast(asyncio.Transport, answer)
            self.cycle.on_response = partial(self._answered, answer)

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        if self._filling is None:
            super().on_body(body)
        else:
            self._missing -= len(body)
            self._filling.add(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._release()
        super().on_response_complete()

    def _answered(self, answer: HeadWithBody) -> None:
        answer.flush()
        self.on_response_complete()

    def _declared(self) -> int:
        """The announced length of an inference's body, where it can be taken whole; else 0."""
        if self.parser.should_upgrade() or not self.url.partition(b"?")[0].endswith(b"/infer"):
            return 0
        for name, value in self.headers:
            if name == b"content-length" and value.isdigit():
                length = int(value)
                return length if length <= self.budget.most else 0
        return 0

    def _release(self) -> None:
        if self._open is not None:
            self._open.release()
            self._open = None

    def _check_head(self) -> None:
        if self._head_bytes <= MOST_HEADER_BYTES:
            return
        reason = f"headers of more than {MOST_HEADER_BYTES} bytes; send less"
        self._refuse("431 Request Header Fields Too Large", reason)

    def _refuse(self, status: str, reason: str) -> None:
        self._refused = True
        body = json.dumps({"error": reason}).encode()
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _too_late(self) -> None:
        self._late = None
        self.transport.close()

    def _clear_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _parser(protocol: HttpToolsProtocol) -> httptools.HttpRequestParser:
    """A parser at the beginning of a request, as uvicorn makes it."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
