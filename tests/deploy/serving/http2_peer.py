"""The other end of an HTTP/2 connection: frames as a client sends them, and what came back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hpack import Decoder, Encoder

from deploy.serving import http2_frames as h2
from deploy.serving.grpc_messages import SERVICE
from deploy.serving.http2_connection import Connection
from deploy.serving.http2_sending import Stream

HELLO = h2.PREFACE + h2.settings({})


@dataclass(frozen=True)
class Frame:
    """One frame that came back."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error of a RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.kind == h2.RESET else self.payload[4:8])


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def frames(self, *kinds: int) -> list[Frame]:
        return [f for f in split(self.sent) if not kinds or f.kind in kinds]

    def fault(self) -> int:
        """The code of the GOAWAY that ended it."""
        assert self.closed
        return self.frames(h2.GOAWAY)[-1].code


class Echo:
    """A call that answers with what it was sent."""

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self.connection, self.stream = connection, stream
        self.data = bytearray()
        self.gone = False

    @property
    def sink(self) -> Echo:
        return self

    def add(self, piece: memoryview) -> None:
        self.data += piece

    def space(self) -> memoryview | None:
        return None

    def took(self, count: int) -> None:
        raise AssertionError("it gave no space")

    def ended(self) -> None:
        self.connection.respond(self.stream, b"\x88", bytes(self.data), b"\x88")

    def cancelled(self) -> None:
        self.gone = True


class InPlace(Echo):
    """The same with room for a given number of bytes."""

    def __init__(self, connection: Connection, stream: Stream, size: int) -> None:
        super().__init__(connection, stream)
        self.data = bytearray(size)
        self.filled = 0
        self.direct = 0

    def add(self, piece: memoryview) -> None:
        self.data[self.filled : self.filled + len(piece)] = piece
        self.filled += len(piece)

    def space(self) -> memoryview | None:
        return memoryview(self.data)[self.filled :]

    def took(self, count: int) -> None:
        self.filled += count
        self.direct += count


def talk(
    data: bytes,
    chunks: Iterable[int] = (),
    make: Callable[[Connection, Stream], Any] = Echo,
    after: Callable[[Connection, Transport], None] = lambda connection, transport: None,
) -> Transport:
    """What a connection answers to these bytes, arriving in pieces of these sizes."""

    async def run() -> Transport:
        transport = Transport()
        nothing: Any = lambda *given: None  # noqa: E731
        connection = Connection(make, nothing, nothing, nothing)
        connection.connection_made(transport)  # type: ignore[arg-type]
        feed(connection, data, chunks)
        after(connection, transport)
        connection.connection_lost(None)
        return transport

    return asyncio.run(run())


def over_socket(port: int, data: bytes) -> list[Frame]:
    """What a server answers to these bytes, until the first stream ends or it hangs up."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as opened:
        opened.sendall(data)
        while piece := opened.recv(1 << 16):
            got += piece
            if any(f.kind == h2.HEADERS and f.flags & h2.END_STREAM for f in whole_frames(got)):
                break
    return split(got)


def feed(connection: Connection, data: bytes, chunks: Iterable[int] = ()) -> None:
    """Bytes as a socket delivers them."""
    sizes = iter(chunks)
    while data:
        buffer = connection.get_buffer(-1)
        count = min(len(buffer), len(data), next(sizes, len(data)))
        buffer[:count] = data[:count]
        data = data[count:]
        connection.buffer_updated(count)


def split(data: bytes) -> list[Frame]:
    """All frames of some bytes, which end with a frame."""
    frames = whole_frames(data)
    assert sum(9 + len(frame.payload) for frame in frames) == len(data)
    return frames


def whole_frames(data: bytes) -> list[Frame]:
    """The frames that are there to their last byte."""
    frames = []
    while len(data) >= 9 + (length := int.from_bytes(data[:3])) and data:
        frames.append(Frame(data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + length]))
        data = data[9 + length :]
    return frames


def headers(
    stream: int, path: str = "ModelInfer", flags: int = h2.END_HEADERS, **more: str
) -> bytes:
    """The headers of a gRPC call."""
    return h2.frame(h2.HEADERS, flags, stream, block(path, **more))


def block(path: str = "ModelInfer", **more: str) -> bytes:
    """Their header block."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": f"/{SERVICE}/{path}".encode(),
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    given = {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}
    return h2.header_block({**fields, **given})


def data(stream: int, payload: bytes, last: bool = True) -> bytes:
    """A DATA frame."""
    return h2.frame(h2.DATA, h2.END_STREAM if last else 0, stream, payload)


def status(frames: Iterable[Frame]) -> dict[str, str]:
    """All headers and trailers of a call's answer."""
    decoder = Decoder()
    found = {}
    for frame in frames:
        if frame.kind == h2.HEADERS:
            found |= {str(name): str(value) for name, value in decoder.decode(frame.payload)}
    return found


def indexed(fields: dict[str, str], encoder: Encoder | None = None) -> bytes:
    """A header block as other clients write it: with a table, and with Huffman codes."""
    return bytes((encoder or Encoder()).encode(fields))
