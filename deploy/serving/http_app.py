"""The HTTP side: V2's routes, the reasons of refusals as JSON, metrics and the token.

Starlette without FastAPI on top: bodies here are bytes, which FastAPI's typed ones don't help, and
the runtime for a small device stays without pydantic.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deploy.errors import one_line
from deploy.serving.http_infer import InferEndpoint, Receive, Scope, Send
from deploy.serving.metrics import CONTENT_TYPE
from deploy.serving.openapi import ROUTES, document
from deploy.serving.refusals import Kind, RefusalError, invalid
from deploy.serving.service import Service, model_metadata, server_metadata

_log = logging.getLogger("deploy.serving")
# what a load balancer asks doesn't need the token
_OPEN = ("/v2/health/live", "/v2/health/ready")
_MOST_BODY = 1 << 16
_INFER = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")


def http_app(service: Service) -> Guard:
    """The ASGI application."""
    answers = Answers(service)
    infer = InferEndpoint(service)
    routes = []
    for route in ROUTES:
        endpoint: Any = infer if route.name == "infer" else getattr(answers, route.name)
        routes += [Route(path, endpoint, methods=[route.method]) for path in route.paths]
    handlers: Any = {HTTPException: _not_found, RefusalError: _refused}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), infer, service)


class Guard:
    """Around everything: the token, the farewell of a stopping server, and one answer for what
    nobody foresaw."""

    def __init__(self, app: Starlette, infer: InferEndpoint, service: Service) -> None:
        self._app: Callable[[Any, Any, Any], Awaitable[None]] = app
        self._infer = infer
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def answer(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if self._service.stopping:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            if self._service.access.token and scope["path"] not in _OPEN:
                self._service.access.check(dict(scope["headers"]).get(b"authorization"))
            found = _INFER.fullmatch(scope["path"])
            if found and scope["method"] == "POST":
                # the one hot route goes straight there, which saves a tenth of a millisecond
                scope["path_params"] = found.groupdict("")
                await self._infer(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except RefusalError as refusal:
            await refusal_response(refusal)(scope, receive, answer)
        # the last resort: the reason goes to the log, the client gets no traceback
        except Exception as error:
            _log.error("internal error: %s", one_line(error), exc_info=True)
            if begun:
                raise
            await JSONResponse({"error": "internal error, see the server's log"}, 500)(
                scope, receive, answer
            )


def refusal_response(refusal: RefusalError) -> JSONResponse:
    """The reason as V2's error object, with the headers that the status asks for."""
    headers = {}
    if refusal.kind is Kind.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if refusal.kind is Kind.BUSY:
        headers["retry-after"] = "1"
    if refusal.kind in (Kind.TOO_LARGE, Kind.SLOW_BODY):
        # what is left of the body isn't read
        headers["connection"] = "close"
    return JSONResponse({"error": refusal.reason}, refusal.kind.status, headers)


class Answers:
    """One method per route of `openapi.ROUTES`, but for inference."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._document = document(service.served.name)

    async def server(self, request: Request) -> Response:
        return JSONResponse(server_metadata())

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self._service.ready()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(self._document)

    async def model(self, request: Request) -> Response:
        path = request.path_params
        version = self._service.served.named(path["name"], path.get("version", ""))
        return JSONResponse(model_metadata(version))

    async def model_ready(self, request: Request) -> Response:
        path = request.path_params
        version = self._service.served.named(path["name"], path.get("version", ""))
        ready = self._service.ready()
        return JSONResponse({"name": version.name, "ready": ready}, 200 if ready else 503)

    async def index(self, request: Request) -> Response:
        await _parameters(request)
        version = self._service.served.version
        state = {"name": version.name, "version": version.number, "state": "READY", "reason": ""}
        return JSONResponse([state])

    async def load(self, request: Request) -> Response:
        name = request.path_params["name"]
        version = await self._service.reload(name, await _parameters(request))
        return JSONResponse({"name": version.name, "version": version.number})

    async def unload(self, request: Request) -> Response:
        self._service.served.named(request.path_params["name"])
        raise invalid("the only model isn't unloaded; stop the server instead")


async def _parameters(request: Request) -> object:
    """The parameters of a repository request; its body may be empty."""
    body = bytearray()
    try:
        async with asyncio.timeout(10):
            async for piece in request.stream():
                body += piece
                if len(body) > _MOST_BODY:
                    raise RefusalError(
                        Kind.TOO_LARGE, f"{len(body)} bytes or more; at most {_MOST_BODY} are taken"
                    )
    except TimeoutError:
        raise RefusalError(Kind.SLOW_BODY, "the body didn't arrive within 10 s") from None
    if not body.strip():
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise invalid("the body is no JSON; send none, or {}") from None
    if not isinstance(value, dict):
        raise invalid("the body is no JSON object; send none, or {}")
    parameters: object = value.get("parameters")
    return parameters


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path[:200]}"
    return JSONResponse({"error": f"{where}: {error.detail}"}, error.status_code, error.headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)
    return refusal_response(error)
