"""The gRPC side: the same answers as over HTTP, with gRPC's codes."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from deploy.errors import one_line
from deploy.serving.grpc_messages import SERVICE, message
from deploy.serving.grpc_wire import raw_apart
from deploy.serving.infer_grpc import parse, reply
from deploy.serving.refusals import RefusalError, invalid
from deploy.serving.service import Service, model_metadata, server_metadata

_log = logging.getLogger("deploy.serving")
# beside the tensors: names, shapes, parameters
_ROOM = 1 << 20
# bytes of a message that may be on their way
_WINDOW = 8 << 20
_OPEN = ("ServerLive", "ServerReady")
Method = Callable[[Any, Any], Awaitable[Any]]


def grpc_server(service: Service) -> Any:
    """A grpc.aio server with the protocol's methods; no port yet."""
    options = service.options
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.max_request_bytes + _ROOM),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", 32 << 10),
            ("grpc.so_reuseport", 0),
            # a tensor in one frame, and room for it from the start: a tenth of the server's time
            ("grpc.http2.max_frame_size", (1 << 24) - 1),
            ("grpc.http2.lookahead_bytes", _WINDOW),
        ],
        maximum_concurrent_rpcs=options.connections,
    )
    methods = Methods(service)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            methods.handler(name, method),
            response_serializer=lambda reply: reply.SerializeToString(),
        )
        for name, method in methods.by_name().items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return server


class Methods:
    """One method per procedure of the specification."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def by_name(self) -> dict[str, Method]:
        """The procedures as the specification names them."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_model_load,
        }

    def handler(self, name: str, method: Method) -> Method:
        """The method behind the token and the refusals; it is given raw bytes, so that garbage is
        refused like every other mistake."""
        request_class = message(f"{name}Request")

        async def handle(raw: bytes, context: Any) -> Any:
            try:
                if name not in _OPEN:
                    metadata = dict(context.invocation_metadata() or ())
                    self._service.access.check(metadata.get("authorization"))
                with self._service.budget.holding(len(raw)):
                    if name == "ModelInfer":
                        rest, tensors = raw_apart(raw)
                        return await self.model_infer(
                            _parsed(request_class, rest), context, tensors
                        )
                    return await method(_parsed(request_class, raw), context)
            except RefusalError as refusal:
                code = grpc.StatusCode[refusal.kind.code]
                await context.abort(code, refusal.reason)
            # the last resort for what nobody foresaw; `abort` itself raises beyond it
            except Exception as error:
                _log.error("internal error: %s", one_line(error), exc_info=True)
                await context.abort(grpc.StatusCode.INTERNAL, "internal error, see the log")

        return handle

    async def server_live(self, request: Any, context: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def server_ready(self, request: Any, context: Any) -> Any:
        return message("ServerReadyResponse")(ready=self._service.ready())

    async def model_ready(self, request: Any, context: Any) -> Any:
        self._service.served.named(request.name, request.version)
        return message("ModelReadyResponse")(ready=self._service.ready())

    async def server_metadata(self, request: Any, context: Any) -> Any:
        return message("ServerMetadataResponse")(**server_metadata())

    async def model_metadata(self, request: Any, context: Any) -> Any:
        version = self._service.served.named(request.name, request.version)
        return message("ModelMetadataResponse")(**model_metadata(version))

    async def model_infer(
        self, request: Any, context: Any, tensors: Sequence[memoryview] = ()
    ) -> Any:
        """Outputs of one request; the caller's own deadline counts too.

        tensors: its raw_input_contents, where they aren't in the message.
        """
        started = time.monotonic()
        service = self._service
        remaining = context.time_remaining()
        with (
            service.answering("grpc", started),
            service.served.named(request.model_name, request.model_version).lease() as version,
        ):
            parsed = parse(request, version, service.options.max_request_bytes, tensors)
            parsed.started = started
            if remaining is not None:
                parsed.timeout_s = min(parsed.timeout_s or remaining, remaining)
            return reply(parsed, await service.infer(version, parsed), version)

    async def repository_index(self, request: Any, context: Any) -> Any:
        version = self._service.served.version
        response = message("RepositoryIndexResponse")()
        response.models.add(name=version.name, version=version.number, state="READY")
        return response

    async def repository_model_load(self, request: Any, context: Any) -> Any:
        await self._service.reload(request.model_name)
        return message("RepositoryModelLoadResponse")()


def _parsed(request_class: Any, raw: bytes) -> Any:
    try:
        return request_class.FromString(raw)
    except DecodeError:
        raise invalid(f"the message is no {request_class.DESCRIPTOR.name}") from None
