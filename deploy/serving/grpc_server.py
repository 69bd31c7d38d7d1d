"""The gRPC port: connections, how many, and a stop that finishes what is under way.

On asyncio's own sockets, since grpc.aio costs seven times as much of a CPU for a message of the
size of an image: three threads and two copies lie between its socket and the handler.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from deploy.serving.grpc_call import GrpcCall, is_grpc, no_grpc, refuse
from deploy.serving.grpc_service import Methods
from deploy.serving.http2_connection import Connection
from deploy.serving.http2_frames import ENHANCE_YOUR_CALM, ConnectionFault
from deploy.serving.http2_sending import Call, Stream
from deploy.serving.refusals import Kind, RefusalError
from deploy.serving.service import Service


class GrpcServer:
    """The protocol's procedures on a port; `start`, then `stop`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._options = service.options
        self._methods = Methods(service)
        # the oldest first
        self._connections: dict[Connection, None] = {}
        self._stopping = False

    async def start(self, bound: socket.socket) -> None:
        """Take connections on a socket that is bound."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, sock=bound, ssl=self._tls())

    async def stop(self, linger_s: float, timeout_s: float) -> None:
        """Refuse new connections at once and new calls after `linger_s`, finish those that were
        begun; what isn't done within `timeout_s` is cut off."""
        self._stopping = True
        self._server.close()
        for connection in self._connections:
            connection.going_away()
        await self._all_closed(linger_s)
        for connection in list(self._connections):
            connection.go_away()
        await self._all_closed(timeout_s)
        for connection in list(self._connections):
            connection.abort()

    async def _all_closed(self, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while self._connections and loop.time() < until:
            await asyncio.sleep(0.01)

    def _tls(self) -> ssl.SSLContext | None:
        if self._options.tls_cert is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._options.tls_cert, self._options.tls_key, password="")
        context.set_alpn_protocols(["h2"])
        return context

    def _connection(self) -> Connection:
        return Connection(self._begin, self._too_much, self._opened, self._closed)

    def _opened(self, connection: Connection) -> None:
        if len(self._connections) >= self._options.connections:
            # a channel that is told to go opens another one when it needs it
            idle = next((other for other in self._connections if other.idle), None)
            if idle is not None:
                self._closed(idle)
                idle.go_away()
        if len(self._connections) >= self._options.connections:
            reason = f"{len(self._connections)} connections are open already"
            connection.on_fault(ConnectionFault(ENHANCE_YOUR_CALM, reason))
            return
        self._connections[connection] = None
        if self._stopping:
            connection.go_away()

    def _closed(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def _begin(self, connection: Connection, stream: Stream) -> Call | None:
        if not is_grpc(stream):
            no_grpc(connection, stream)
            return None
        service = self._service
        return GrpcCall(
            connection, stream, service.budget, self._options.timeout_s, self._methods.answer
        )

    def _too_much(self, connection: Connection, stream: Stream) -> None:
        reason = "more headers than the 32768 bytes that are taken; send less"
        refuse(connection, stream, RefusalError(Kind.TOO_LARGE, reason))
