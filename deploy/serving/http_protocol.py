"""uvicorn's HTTP parser with what it leaves open: a limit on headers, a limit on their arrival, and
a body that is taken in large pieces."""

from __future__ import annotations

import asyncio
import json
from asyncio import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deploy.serving.body import Body, Budget

MOST_HEADER_BYTES = 32 << 10
HEADER_TIMEOUT_S = 20.0
# the key of a request's `Body` in the state of its ASGI scope
BODY = "deploy.body"


def limited_protocol(budget: Budget) -> type[asyncio.Protocol]:
    """The protocol class whose bodies count against a budget: uvicorn makes the instances."""
    return type("Limited", (LimitedProtocol,), {"budget": budget})


class LimitedProtocol(HttpToolsProtocol):
    """Refuses (431) headers beyond MOST_HEADER_BYTES, drops a connection whose headers take longer
    than HEADER_TIMEOUT_S, and fills a body of announced length in place.

    uvicorn hands a body over in pieces, each copied four times and each with a turn of the event
    loop; such a body is copied once and its task is woken once.
    """

    budget: Budget

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # the body that is arriving, and the one of the request that is being answered
        self._filling: Body | None = None
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
            self.scope["state"][BODY] = self._filling
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        if self._filling is None:
            super().on_body(body)
        elif not self.cycle.response_complete:
            self._filling.add(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._release()
        super().on_response_complete()

    def _declared(self) -> int:
        """The announced length of an inference's body, where it can be taken whole; else 0."""
        if not self.url.partition(b"?")[0].endswith(b"/infer"):
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
