"""A server in a thread of this process, for what wants to ask it and go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.serving.lifecycle import Ports, Server
from deploy.serving.options import Options


@dataclass(frozen=True)
class Running:
    """A server that takes requests, until the block ends."""

    name: str
    ports: Ports
    server: Server
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        """Without a path: http://host:port."""
        scheme = "https" if self.server.options.tls_cert else "http"
        return f"{scheme}://{self.server.options.host}:{self.ports.http}"

    def reload(self) -> None:
        """Begin to load the bundle that is on disk now, as SIGHUP does."""
        self.loop.call_soon_threadsafe(self.server.reload)

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does; the end of the block waits for it."""
        self.loop.call_soon_threadsafe(self.server.stop)


@contextmanager
def serving(options: Options) -> Iterator[Running]:
    """The server of these options, ready; stopped at the end of the block.

    What `serve` raises when it can't start is raised here.
    """
    import uvloop

    started: Future[Running] = Future()

    async def run() -> None:
        server = Server(options)
        try:
            ports = await server.start()
        except BaseException as error:
            started.set_exception(error)
            return
        loop = asyncio.get_running_loop()
        started.set_result(Running(server.name, ports, server, loop))
        await server.run()

    thread = threading.Thread(target=lambda: uvloop.run(run()), name="serving")
    thread.start()
    try:
        running = started.result()
        try:
            yield running
        finally:
            running.stop()
    finally:
        thread.join()
