"""What arrives on an HTTP/2 connection, taken apart into frames.

The payload of a DATA frame is read from the socket straight to where it belongs, so that a tensor
is copied once, by the kernel.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod

from deploy.errors import one_line
from deploy.serving.http2_frames import (
    DATA,
    END_STREAM,
    FRAME_SIZE_ERROR,
    HEAD_BYTES,
    INTERNAL_ERROR,
    PADDED,
    PREFACE,
    PROTOCOL_ERROR,
    ConnectionFault,
)
from deploy.serving.http2_sending import Sink

_log = logging.getLogger("deploy.serving")
_SPACE = 1 << 16
_NUMBER_MASK = (1 << 31) - 1


class FrameReader(asyncio.BufferedProtocol):
    """Calls `on_frame`, `on_data` and `on_data_end` in the order of the frames.

    A ConnectionFault of theirs or of the reader's own goes to `on_fault`, after which nothing is
    read any more.
    """

    def __init__(self) -> None:
        self._space = bytearray(_SPACE)
        self._view = memoryview(self._space)
        # bytes in _space that aren't handled yet
        self._filled = 0
        self._begun = False
        # of the DATA frame that is arriving: its stream and flags, payload and padding to come
        self._stream = 0
        self._flags = 0
        self._payload = 0
        self._padding = 0
        self._sink: Sink | None = None
        self._direct: Sink | None = None
        self._broken = False

    @abstractmethod
    def on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """A whole frame of any kind but DATA."""

    @abstractmethod
    def on_data(self, stream: int, length: int) -> Sink | None:
        """A DATA frame of so many bytes begins; None drops its payload."""

    @abstractmethod
    def on_data_end(self, stream: int, last: bool) -> None:
        """A DATA frame is over."""

    @abstractmethod
    def on_fault(self, fault: ConnectionFault) -> None:
        """The peer broke the protocol."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio asks where the next bytes go; it may find none, and ask again."""
        self._direct = None
        if self._payload and self._sink is not None and not self._broken:
            space = self._sink.space()
            if space:
                self._direct = self._sink
                return space[: self._payload]
        return self._view if self._broken else self._view[self._filled :]

    def buffer_updated(self, count: int) -> None:
        """asyncio has put so many bytes there."""
        if self._broken:
            return
        try:
            if self._direct is not None:
                self._direct.took(count)
                self._direct = None
                self._payload -= count
                self._end_data()
            else:
                self._filled += count
                self._take()
        except ConnectionFault as fault:
            self._broken = True
            self.on_fault(fault)
        # what nobody foresaw ends one connection, not the server
        except Exception as error:
            _log.error("internal error: %s", one_line(error), exc_info=True)
            self._broken = True
            self.on_fault(ConnectionFault(INTERNAL_ERROR, "internal error, see the log"))

    def _take(self) -> None:
        """Handle all that is whole and move the rest to the front."""
        at = 0
        while at < self._filled and not self._broken:
            took = self._step(at)
            if not took:
                break
            at += took
        self._filled -= at
        if at and self._filled:
            self._view[: self._filled] = self._view[at : at + self._filled]

    def _step(self, at: int) -> int:
        """How many bytes from `at` on were handled; 0 when more have to come first."""
        if not self._begun:
            return self._preface()
        there = self._filled - at
        if self._payload or self._padding:
            return self._data(at, there)
        if there < HEAD_BYTES:
            return 0
        view = self._view
        length = int.from_bytes(view[at : at + 3], "big")
        kind, flags = view[at + 3], view[at + 4]
        stream = int.from_bytes(view[at + 5 : at + 9], "big") & _NUMBER_MASK
        if kind == DATA:
            return self._begin_data(at, there, length, flags, stream)
        if HEAD_BYTES + length > _SPACE:
            raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame of kind {kind} and {length} bytes")
        if there < HEAD_BYTES + length:
            return 0
        start = at + HEAD_BYTES
        self.on_frame(kind, flags, stream, bytes(view[start : start + length]))
        return HEAD_BYTES + length

    def _preface(self) -> int:
        got = bytes(self._view[: min(self._filled, len(PREFACE))])
        if not PREFACE.startswith(got):
            raise ConnectionFault(PROTOCOL_ERROR, "this port speaks HTTP/2 alone, for gRPC")
        if len(got) < len(PREFACE):
            return 0
        self._begun = True
        return len(PREFACE)

    def _begin_data(self, at: int, there: int, length: int, flags: int, stream: int) -> int:
        head, padding, payload = HEAD_BYTES, 0, length
        if flags & PADDED:
            if not length:
                raise ConnectionFault(FRAME_SIZE_ERROR, "padded data without a length of padding")
            if there == HEAD_BYTES:
                return 0
            head, padding = HEAD_BYTES + 1, self._view[at + HEAD_BYTES]
            payload = length - 1 - padding
            if payload < 0:
                raise ConnectionFault(PROTOCOL_ERROR, "more padding than frame")
        self._sink = self.on_data(stream, length)
        self._stream, self._flags = stream, flags
        self._payload, self._padding = payload, padding
        self._end_data()
        return head

    def _data(self, at: int, there: int) -> int:
        if self._payload:
            took = min(self._payload, there)
            self._payload -= took
            if self._sink is not None:
                self._sink.add(self._view[at : at + took])
        else:
            took = min(self._padding, there)
            self._padding -= took
        self._end_data()
        return took

    def _end_data(self) -> None:
        if not self._payload and not self._padding:
            self._sink = None
            self.on_data_end(self._stream, bool(self._flags & END_STREAM))
