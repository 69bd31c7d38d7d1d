"""The gRPC side: the same answers as over HTTP, with gRPC's codes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from deploy.serving.grpc_call import GrpcCall
from deploy.serving.grpc_messages import SERVICE, message
from deploy.serving.grpc_wire import raw_apart
from deploy.serving.infer_grpc import parse, reply
from deploy.serving.refusals import Kind, RefusalError, invalid
from deploy.serving.service import Service, model_metadata, server_metadata

_OPEN = ("ServerLive", "ServerReady")
Method = Callable[[Any, GrpcCall], Awaitable[Any]]


class Methods:
    """One method per procedure of the specification."""

    def __init__(self, service: Service) -> None:
        self._service = service
        # the procedures as the specification names them
        methods: dict[str, Method] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_model_load,
        }
        self._methods = {
            f"/{SERVICE}/{name}".encode(): (name, method, message(f"{name}Request"))
            for name, method in methods.items()
        }
        self._infer_path = f"/{SERVICE}/ModelInfer".encode()
        self._infer_request = message("ModelInferRequest")

    async def answer(self, call: GrpcCall) -> bytes:
        """The reply's bytes; it is given raw bytes, so that garbage is refused like every other
        mistake."""
        path = call.headers.get(b":path", b"")
        access = self._service.access
        if path == self._infer_path:
            access.check(call.headers.get(b"authorization"))
            rest, tensors = raw_apart(call.sink.data())
            found = await self.model_infer(_parsed(self._infer_request, rest), call, tensors)
        elif path in self._methods:
            name, method, request_class = self._methods[path]
            if name not in _OPEN:
                access.check(call.headers.get(b"authorization"))
            found = await method(_parsed(request_class, call.sink.data()), call)
        else:
            reason = f"no procedure {path[:100].decode('latin-1')!r}; this is {SERVICE}"
            raise RefusalError(Kind.UNIMPLEMENTED, reason)
        raw: bytes = found.SerializeToString()
        return raw

    async def server_live(self, request: Any, call: GrpcCall) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def server_ready(self, request: Any, call: GrpcCall) -> Any:
        return message("ServerReadyResponse")(ready=self._service.ready())

    async def model_ready(self, request: Any, call: GrpcCall) -> Any:
        self._service.served.named(request.name, request.version)
        return message("ModelReadyResponse")(ready=self._service.ready())

    async def server_metadata(self, request: Any, call: GrpcCall) -> Any:
        return message("ServerMetadataResponse")(**server_metadata())

    async def model_metadata(self, request: Any, call: GrpcCall) -> Any:
        version = self._service.served.named(request.name, request.version)
        return message("ModelMetadataResponse")(**model_metadata(version))

    async def model_infer(self, request: Any, call: GrpcCall, tensors: Sequence[memoryview]) -> Any:
        """Outputs of one request; the caller's own deadline counts too.

        tensors: its raw_input_contents, where they aren't in the message.
        """
        started = call.started
        service = self._service
        remaining = call.remaining_s()
        with (
            service.answering("grpc", started),
            service.served.named(request.model_name, request.model_version).lease() as version,
        ):
            parsed = parse(request, version, service.options.max_request_bytes, tensors)
            parsed.started = started
            if remaining is not None:
                parsed.timeout_s = min(parsed.timeout_s or remaining, remaining)
            return reply(parsed, await service.infer(version, parsed), version)

    async def repository_index(self, request: Any, call: GrpcCall) -> Any:
        version = self._service.served.version
        response = message("RepositoryIndexResponse")()
        response.models.add(name=version.name, version=version.number, state="READY")
        return response

    async def repository_model_load(self, request: Any, call: GrpcCall) -> Any:
        await self._service.reload(request.model_name)
        return message("RepositoryModelLoadResponse")()


def _parsed(request_class: Any, raw: bytes | memoryview) -> Any:
    try:
        return request_class.FromString(bytes(raw))
    except DecodeError:
        raise invalid(f"the message is no {request_class.DESCRIPTOR.name}") from None
