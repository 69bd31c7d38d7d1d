"""The server from start to stop: bind, load, serve, reload on SIGHUP, finish on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, cast

import uvicorn

from deploy.errors import RecipeError
from deploy.serving import json_log
from deploy.serving.grpc_server import GrpcServer
from deploy.serving.heap import few_arenas
from deploy.serving.http_app import http_app
from deploy.serving.http_protocol import limited_protocol
from deploy.serving.options import Options
from deploy.serving.service import Service

_log = logging.getLogger("deploy.serving")


@dataclass(frozen=True)
class Ports:
    """Where the server listens; grpc is None without it."""

    http: int
    grpc: int | None


class HttpServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the stop is ours to stage."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def stop_listening(self) -> None:
        """Take no further connection; those that are open are still answered."""
        for server in self.servers:
            server.close()


class Server:
    """One server in a running event loop; `start`, then `run` until `stop`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._made: Service | None = None
        self._grpc: GrpcServer | None = None

    @property
    def _service(self) -> Service:
        assert self._made is not None, "not started"
        return self._made

    @property
    def name(self) -> str:
        """What clients call the model; known once started."""
        return self._service.served.name

    async def start(self) -> Ports:
        """Bind, load and listen; DeployError when that can't be."""
        options = self.options
        bound = [_bound(options.host, options.http_port, "--http-port")]
        try:
            if options.grpc_port is not None:
                bound.append(_bound(options.host, options.grpc_port, "--grpc-port"))
            self._made = await asyncio.to_thread(Service, options)
            if options.grpc_port is not None:
                self._grpc = GrpcServer(self._service)
                await self._grpc.start(bound[1])
            await self._start_http(bound[0])
        except BaseException:
            for one in bound:
                one.close()
            if self._made is not None:
                await self._made.served.close()
            raise
        numbers = [one.getsockname()[1] for one in bound]
        ports = Ports(numbers[0], numbers[1] if len(numbers) > 1 else None)
        self._announce(ports)
        return ports

    async def _start_http(self, bound: socket.socket) -> None:
        self._http = HttpServer(_config(self.options, self._service))
        self._serving = asyncio.create_task(self._http.serve(sockets=[bound]))
        while not self._http.started:
            if self._serving.done():
                await self._serving
            await asyncio.sleep(0)

    async def run(self) -> None:
        """Serve until `stop`, then finish what is under way."""
        await self._stop.wait()
        service = self._service
        service.stopping = True
        _log.info("stopping")
        self._http.stop_listening()
        waiting = [self._serving, asyncio.create_task(self._end_http())]
        if self._grpc is not None:
            ending = self._grpc.stop(self.options.linger_s, self.options.timeout_s)
            waiting.append(asyncio.create_task(ending))
        await asyncio.gather(*waiting)
        await service.served.close()
        _log.info("stopped")

    def stop(self) -> None:
        """Begin to stop; safe to call again."""
        self._stop.set()

    def reload(self) -> None:
        """Begin to load the bundle that is on disk now; nothing while the first one loads."""
        if self._made is not None:
            self._spawn(self._made.reload_or_log())

    async def _end_http(self) -> None:
        # a client that is just about to use its open connection again still gets its answer
        until = time.monotonic() + self.options.linger_s
        while self._http.server_state.connections and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self._http.should_exit = True

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _announce(self, ports: Ports) -> None:
        options, version = self.options, self._service.served.version
        if not options.local() and not self._service.access.token:
            _log.warning("anyone who reaches %s may use the model; --token-file", options.host)
        _log.info(
            "ready",
            extra={
                "fields": {
                    "model": version.name,
                    "version": version.number,
                    "bundle": version.digest,
                    "host": options.host,
                    "http_port": ports.http,
                    "grpc_port": ports.grpc,
                    "tls": bool(self._service.access.cert),
                    "precision": version.precision,
                    "streams": version.streams,
                    "merged_rows": version.most_rows,
                }
            },
        )


def serve(options: Options, ready: Callable[[Ports], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; returns when everything under way is answered.

    ready: called with the ports once requests are taken.
    """
    import uvloop

    few_arenas()
    handler = json_log.start()
    try:
        uvloop.run(_main(options, ready))
    finally:
        json_log.stop(handler)


async def _main(options: Options, ready: Callable[[Ports], None] | None) -> None:
    server = Server(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    # from the beginning: its default action ends the process
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    ports = await server.start()
    # modules and routes live as long as the process: nothing to look through again and again
    gc.collect()
    gc.freeze()
    if ready:
        ready(ports)
    await server.run()


def _bound(host: str, port: int, flag: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # listening only comes with the loaded model: until then a probe is refused, not kept
        bound.bind((host, port))
        return bound
    except OSError as error:
        bound.close()
        raise RecipeError(
            f"{host}:{port}: {error.strerror or error}; give another {flag} or --host"
        ) from None


def _config(options: Options, service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        http_app(service),
        # uvicorn only calls it
        http=cast(type[asyncio.Protocol], limited_protocol(service.budget)),
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        limit_concurrency=options.connections,
        timeout_graceful_shutdown=int(options.timeout_s) + 1,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
