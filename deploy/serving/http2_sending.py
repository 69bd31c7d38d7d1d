"""What an HTTP/2 peer lets us send: its windows, its size of frames, and how fast it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

from deploy.serving import http2_frames as h2
from deploy.serving.http2_frames import ConnectionFault

# answers to control frames that a peer who reads nothing may make us owe it
_MOST_OWED = 1000


class Sink(Protocol):
    """Where the payload of a stream's DATA frames goes."""

    def add(self, piece: memoryview) -> None:
        """Take a copy."""

    def space(self) -> memoryview | None:
        """Room to be written to in place of `add`; None or empty where there is none."""

    def took(self, count: int) -> None:
        """So much was written to `space`."""


class Call(Protocol):
    """What the connection tells a stream."""

    @property
    def sink(self) -> Sink:
        """Where the request's data goes."""

    def ended(self) -> None:
        """The request is there to its last byte."""

    def cancelled(self) -> None:
        """The peer, or the connection, is gone."""


class Stream:
    """A stream's number, its request's headers, and what of the answer is still to be sent."""

    def __init__(self, number: int, headers: dict[bytes, bytes], window: int) -> None:
        self.number = number
        self.headers = headers
        self.window = window
        self.received = False
        self.call: Call | None = None
        self.rest = memoryview(b"")
        self.trailers = b""


class Sender:
    """The sending half of a connection.

    initial: the window that a new stream has.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.initial = h2.DEFAULT_WINDOW
        self._window = h2.DEFAULT_WINDOW
        self._frame_size = h2.DEFAULT_FRAME_SIZE
        self._paused = False
        self._owed = 0

    def reply(self, answer: bytes) -> None:
        """Answer a control frame; a peer who asks and reads nothing is cut off."""
        self._owed += self._paused
        if self._owed > _MOST_OWED:
            self._transport.abort()
        else:
            self._transport.write(answer)

    def pause(self, paused: bool) -> None:
        """Whether the peer reads more slowly than we send."""
        self._paused = paused
        if not paused:
            self._owed = 0

    def some(self, stream: Stream, first: bytes) -> bytes:
        """`first` and what the windows let through of the stream's rest."""
        pieces: list[bytes | memoryview] = [first]
        while stream.rest and not self._paused:
            count = min(self._window, stream.window, self._frame_size, len(stream.rest))
            if count <= 0:
                break
            pieces += [h2.frame_head(h2.DATA, 0, stream.number, count), stream.rest[:count]]
            stream.rest = stream.rest[count:]
            stream.window -= count
            self._window -= count
        return b"".join(pieces)

    def settle(self, payload: bytes, streams: Collection[Stream]) -> None:
        """Keep to the peer's settings from now on, and say so."""
        # of a setting that comes several times the last one holds
        found = dict(h2.read_settings(payload))
        value = found.get(h2.INITIAL_WINDOW, self.initial)
        for stream in streams if value != self.initial else ():
            stream.window += value - self.initial
        self.initial = value
        self._frame_size = found.get(h2.FRAME_SIZE, self._frame_size)
        self.reply(h2.frame(h2.SETTINGS, h2.ACK, 0))

    def widen(self, stream: Stream | None, more: int) -> None:
        """Leave to send more, on a stream or, without one, altogether."""
        if stream is not None:
            stream.window += more
        else:
            self._window += more
        if not more or (self._window if stream is None else stream.window) > h2.MOST_WINDOW:
            raise ConnectionFault(h2.FLOW_CONTROL_ERROR, f"a window wider by {more}")
