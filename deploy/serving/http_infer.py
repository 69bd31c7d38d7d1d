"""POST …/infer, straight on ASGI: the one route where every copy of a body counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from deploy.serving.body import Body, Budget, too_large
from deploy.serving.http_protocol import BODY
from deploy.serving.infer_http import HEADER_LENGTH, header_length, parse, reply
from deploy.serving.infer_request import InferRequest
from deploy.serving.refusals import Kind, RefusalError, invalid
from deploy.serving.served import Version
from deploy.serving.service import Service

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# from here on, JSON is parsed in a thread
_LONG_JSON = 1 << 16
# a body that is refused is read on for so long: closing on a writing client loses the answer
_LINGER_S = 5.0


class Disconnected(Exception):  # noqa: N818
    """The client went away; nobody is left to answer."""


class InferEndpoint:
    """The ASGI application of the inference routes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        path = scope["path_params"]
        service = self._service
        try:
            with (
                service.answering("http", started),
                service.served.named(path["name"], path.get("version", "")).lease() as version,
                body_of(scope, service.budget) as held,
            ):
                body, length = await self._answer(scope, receive, held, version, started)
        except Disconnected:
            return
        media = b"application/json" if length is None else b"application/octet-stream"
        headers = [(b"content-type", media), (b"content-length", str(len(body)).encode())]
        if length is not None:
            headers.append((HEADER_LENGTH.encode(), str(length).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, scope: Scope, receive: Receive, held: Body, version: Version, started: float
    ) -> tuple[bytes, int | None]:
        options = self._service.options
        headers = dict(scope["headers"])
        await read_body(headers, receive, held, self._service)
        given = headers.get(HEADER_LENGTH.encode())
        text = None if given is None else given.decode("latin-1")
        length = header_length(text, held.filled, options.json_bytes)
        request = await self._parsed(held.data, length, version)
        request.started = started
        outputs = await self._service.infer(version, request)
        if sum(x.size for x in outputs.values()) > _LONG_JSON:
            return await asyncio.to_thread(reply, request, outputs, version)
        return reply(request, outputs, version)

    async def _parsed(
        self, body: bytearray | memoryview, length: int, version: Version
    ) -> InferRequest:
        most = self._service.options.max_request_bytes
        if length > _LONG_JSON:
            return await asyncio.to_thread(parse, body, length, version, most)
        return parse(body, length, version, most)


@contextmanager
def body_of(scope: Scope, budget: Budget) -> Iterator[Body]:
    """The body that the connection fills by itself, or a new one to fill; released at the end."""
    body = scope["state"].get(BODY) or Body(budget)
    try:
        yield body
    finally:
        body.release()


async def read_body(
    headers: dict[bytes, bytes], receive: Receive, body: Body, service: Service
) -> None:
    """Wait for the whole body; refused when it is too large, compressed or too slow."""
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding.lower() not in (b"identity", b""):
        shown = encoding[:40].decode("latin-1")
        raise RefusalError(Kind.ENCODED, f"content-encoding {shown!r}; send the body as it is")
    timeout_s = service.options.timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            await _whole(headers, receive, body, service.budget)
    except TimeoutError:
        raise RefusalError(
            Kind.SLOW_BODY, f"the body didn't arrive within {timeout_s:g} s; send it faster"
        ) from None


async def _whole(headers: dict[bytes, bytes], receive: Receive, body: Body, budget: Budget) -> None:
    declared = headers.get(b"content-length")
    refusal = None
    if declared is not None and int(declared) > budget.most:
        refusal = too_large(int(declared), budget)
    more = True
    while more and refusal is None:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        more = message.get("more_body", False)
        body.add(message.get("body", b""))
        refusal = body.refusal
    if refusal is not None:
        if more:
            await _read_on(receive)
        raise refusal
    if declared is not None and body.filled != int(declared):
        raise invalid(f"a body of {body.filled} bytes, content-length says {int(declared)}")


async def _read_on(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_LINGER_S):
            while (message := await receive()).get("more_body"):
                del message
    except TimeoutError:
        return
