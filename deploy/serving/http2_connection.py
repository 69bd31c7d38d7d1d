"""One HTTP/2 connection of a server (RFC 9113): its streams, the windows of both sides, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from deploy.serving import http2_frames as h2
from deploy.serving.http2_frames import ConnectionFault
from deploy.serving.http2_headers import MOST_HEADER_BYTES, Fields, HeaderBlocks, too_many
from deploy.serving.http2_reader import FrameReader
from deploy.serving.http2_sending import Call, Sender, Sink, Stream

MOST_STREAMS = 256
# until the preface, or the rest of a header block, has to be there
HEADER_TIMEOUT_S = 20.0
# bodies are bounded by their budget, so the windows only have to be out of the way
_WINDOW = 1 << 30
# what a peer may make us do for nothing: resets and settings at once, per second, and for an answer
# that it waited for
_FREE, _FREE_PER_S = 1000, 200.0


class Connection(FrameReader):
    """Hands each request's headers to `begin`, which gives the call that takes the rest, or
    answers at once and gives None.

    opened, closed: told of the connection itself. headers_refused: called in place of `begin` for
    headers beyond the limit.
    """

    def __init__(
        self,
        begin: Callable[[Connection, Stream], Call | None],
        headers_refused: Callable[[Connection, Stream], None],
        opened: Callable[[Connection], None],
        closed: Callable[[Connection], None],
    ) -> None:
        super().__init__()
        self._begin, self._headers_refused = begin, headers_refused
        self._opened, self._closed = opened, closed
        self._streams: dict[int, Stream] = {}
        self._last = 0
        # a stream above it is refused, once the connection is going away
        self._accepted = h2.MOST_WINDOW
        self._blocks = HeaderBlocks()
        self._room = _WINDOW
        self._free, self._free_at = float(_FREE), 0.0
        self._late: asyncio.TimerHandle | None = None

    # what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._sender = Sender(self._transport)
        self._loop = asyncio.get_running_loop()
        self._free_at = self._loop.time()
        self._late = self._loop.call_later(HEADER_TIMEOUT_S, self._transport.abort)
        self._transport.write(_OPENING)
        self._opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            if stream.call is not None:
                stream.call.cancelled()
        self._closed(self)

    def pause_writing(self) -> None:
        self._sender.pause(True)

    def resume_writing(self) -> None:
        self._sender.pause(False)
        self._push_all()

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer here."""
        return not self._streams

    # what a call does

    def respond(self, stream: Stream, headers: bytes, data: bytes, trailers: bytes) -> None:
        """The whole answer: two header blocks and what is between them; parts of it wait where the
        peer's windows are shut."""
        if self._streams.get(stream.number) is not stream:
            return
        stream.rest = memoryview(data)
        flags = h2.END_HEADERS | h2.END_STREAM
        stream.trailers = h2.frame(h2.HEADERS, flags, stream.number, trailers)
        self._push(stream, h2.frame(h2.HEADERS, h2.END_HEADERS, stream.number, headers))

    def refuse(self, stream: Stream, headers: bytes) -> None:
        """An answer that is one header block; a request that still arrives is dropped."""
        if self._streams.get(stream.number) is not stream:
            return
        flags = h2.END_HEADERS | h2.END_STREAM
        # it costs the peer little, so that one who reads none of them is cut off
        answer = h2.frame(h2.HEADERS, flags, stream.number, headers)
        self._finish(stream, answer, self._sender.reply)

    def cut(self, stream: Stream) -> None:
        """Give up an answer that the peer doesn't take."""
        if self._streams.get(stream.number) is stream:
            del self._streams[stream.number]
            self._sender.reply(h2.reset(stream.number, h2.CANCEL))
            self._close_when_idle()

    # how it ends

    def going_away(self) -> None:
        """Ask the peer to begin nothing more here; what is on its way is still taken."""
        self._transport.write(h2.goaway(h2.MOST_WINDOW, h2.NO_ERROR))

    def go_away(self) -> None:
        """Refuse new streams from here on, and close after the last answer."""
        self._accepted = self._last
        self._transport.write(h2.goaway(self._last, h2.NO_ERROR))
        self._close_when_idle()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def on_fault(self, fault: ConnectionFault) -> None:
        self._transport.write(h2.goaway(self._last, fault.code, fault.reason))
        self._transport.close()

    # what the peer sends

    def on_data(self, stream: int, length: int) -> Sink | None:
        if self._blocks.unfinished or not stream:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "data where none may be")
        self._room -= length
        if self._room < _WINDOW // 2:
            self._sender.reply(h2.window(0, _WINDOW - self._room))
            self._room = _WINDOW
        found = self._streams.get(stream)
        if found is None or found.received or found.call is None:
            if stream > self._last:
                raise ConnectionFault(h2.PROTOCOL_ERROR, f"data on idle stream {stream}")
            return None
        return found.call.sink

    def on_data_end(self, stream: int, last: bool) -> None:
        if last:
            self._received(stream)

    def on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._blocks.unfinished != (kind == h2.CONTINUATION):
            raise ConnectionFault(h2.PROTOCOL_ERROR, f"frame {kind} within or without headers")
        match kind:
            case h2.HEADERS:
                if not stream % 2:
                    raise ConnectionFault(h2.PROTOCOL_ERROR, f"headers on stream {stream}")
                self._headers(stream, self._blocks.begin(stream, flags, payload))
            case h2.CONTINUATION:
                self._headers(stream, self._blocks.go_on(stream, flags, payload))
            case h2.WINDOW:
                self._widened(stream, h2.number(payload, "a window update"))
            case h2.SETTINGS if not flags & h2.ACK:
                self._in_time()
                self._spend("settings")
                self._sender.settle(payload, self._streams.values())
                self._push_all()
            case h2.PING if not flags & h2.ACK:
                if len(payload) != 8:
                    raise ConnectionFault(h2.FRAME_SIZE_ERROR, f"a ping of {len(payload)} bytes")
                self._sender.reply(h2.frame(h2.PING, h2.ACK, 0, payload))
            case h2.RESET:
                self._reset(stream, h2.number(payload, "a reset"))
            case h2.PUSH:
                raise ConnectionFault(h2.PROTOCOL_ERROR, "a client doesn't push")

    def _headers(self, stream: int, found: tuple[bool, Fields] | None) -> None:
        if found is None:
            self._late = self._late or self._loop.call_later(
                HEADER_TIMEOUT_S, self._transport.abort
            )
            return
        self._in_time()
        last, fields = found
        if stream > self._last:
            self._open(stream, fields)
        if last:
            self._received(stream)

    def _open(self, number: int, fields: Fields) -> None:
        self._last = number
        if number > self._accepted or len(self._streams) >= MOST_STREAMS:
            self._sender.reply(h2.reset(number, h2.REFUSED_STREAM))
            return
        stream = self._streams[number] = Stream(number, dict(fields), self._sender.initial)
        if too_many(fields):
            self._headers_refused(self, stream)
        else:
            stream.call = self._begin(self, stream)

    def _received(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None and not stream.received:
            stream.received = True
            if stream.call is not None:
                stream.call.ended()

    def _reset(self, number: int, code: int) -> None:
        if number > self._last:
            raise ConnectionFault(h2.PROTOCOL_ERROR, f"reset of idle stream {number}")
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        if stream.call is not None:
            stream.call.cancelled()
        self._spend("resets")
        self._close_when_idle()

    def _spend(self, what: str) -> None:
        """One more of what costs the peer next to nothing; fault when there are too many."""
        now = self._loop.time()
        grown = min(_FREE, self._free + (now - self._free_at) * _FREE_PER_S)
        self._free = max(self._free, grown) - 1
        self._free_at = now
        if self._free < 0:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, f"too many {what} at once")

    def _widened(self, number: int, more: int) -> None:
        stream = self._streams.get(number)
        if stream is not None or not number:
            self._sender.widen(stream, more)
            self._push_all()

    # what is sent

    def _push(self, stream: Stream, first: bytes = b"") -> None:
        """Send what the windows let through."""
        pieces = self._sender.some(stream, first)
        if stream.rest:
            self._transport.write(pieces)
        else:
            self._finish(stream, pieces + stream.trailers)

    def _push_all(self) -> None:
        for stream in [s for s in self._streams.values() if s.rest]:
            self._push(stream)

    def _finish(
        self, stream: Stream, end: bytes, write: Callable[[bytes], None] | None = None
    ) -> None:
        del self._streams[stream.number]
        self._free += 1
        # nobody reads on what the peer is still sending
        whole = end if stream.received else end + h2.reset(stream.number, h2.NO_ERROR)
        (write or self._transport.write)(whole)
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._accepted != h2.MOST_WINDOW and not self._streams:
            self._transport.close()

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


_OPENING = h2.settings(
    {
        h2.MOST_STREAMS: MOST_STREAMS,
        h2.INITIAL_WINDOW: _WINDOW,
        h2.FRAME_SIZE: h2.MOST_FRAME_SIZE,
        h2.HEADER_LIST: MOST_HEADER_BYTES,
    }
) + h2.window(0, _WINDOW - h2.DEFAULT_WINDOW)
