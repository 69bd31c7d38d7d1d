"""A gRPC call on a plain socket: HTTP/2 frames made once, no library between them and the kernel.

The callers of `serve.py` share the server's cores, and an ordinary gRPC client takes a third of a
millisecond of them per call. It keeps to RFC 9113: both flow-control windows, the peer's frame
size, settings and pings answered; what it leaves out is the decoding of headers, so a call that
fails is only seen to have brought no message.
"""

from __future__ import annotations

import socket
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM = _ACK = 1
_END_HEADERS = 4
_PADDED = 8
_INITIAL_WINDOW, _MAX_FRAME = 4, 5
# what the server may send before we say more
_ROOM = 1 << 30
_LENGTH = struct.Struct(">I")


class Http2Caller:
    """One connection with one call at a time: send the message, get the answer's."""

    def __init__(self, port: int, path: str, message: bytes) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._stream = -1
        self._frame_size = 1 << 14
        self._initial = self._window = self._stream_window = (1 << 16) - 1
        self._room = _ROOM
        self._head = _header_block(path, port)
        self._body = memoryview(b"\0" + _LENGTH.pack(len(message)) + message)
        self._settled = False
        settings = struct.pack(">HI", _INITIAL_WINDOW, _ROOM)
        more = _LENGTH.pack(_ROOM - self._window)
        self._connection.sendall(
            _PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, more)
        )
        while not self._settled:
            self._take()

    def __call__(self) -> bytes:
        """The answer's message; ConnectionError when none came."""
        self.send(len(self._body))
        while not self._ended:
            self._take()
        if len(self._answer) < 5:
            raise ConnectionError("the call failed: no message came back")
        return bytes(self._answer[5:])

    def send(self, count: int) -> None:
        """Begin a call: headers and so many bytes of the body, as many as the windows let through
        at a time."""
        self._stream += 2
        self._stream_window = self._initial
        self._answer = bytearray()
        self._ended = False
        pieces = [_frame(_HEADERS, _END_HEADERS, self._stream, self._head)]
        at = 0
        while at < count and not self._ended:
            room = min(self._window, self._stream_window, self._frame_size, count - at)
            if not room:
                self._flush(pieces)
                self._take()
                continue
            end = at + room
            flags = _END_STREAM if end == len(self._body) else 0
            pieces += [_frame_head(_DATA, flags, self._stream, room), self._body[at:end]]
            self._window -= room
            self._stream_window -= room
            at = end
        self._flush(pieces)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _flush(self, pieces: list[bytes | memoryview]) -> None:
        while pieces:
            # IOV_MAX is 1024
            sent = self._connection.sendmsg(pieces[:1000])
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if sent:
                pieces[0] = pieces[0][sent:]

    def _take(self) -> None:
        """Read something and handle every whole frame of what is there."""
        got = self._connection.recv(1 << 16)
        if not got:
            raise ConnectionError("the server closed the connection")
        self._received += got
        at = 0
        while len(self._received) >= at + 9:
            length = int.from_bytes(self._received[at : at + 3], "big")
            if len(self._received) < at + 9 + length:
                break
            kind, flags = self._received[at + 3], self._received[at + 4]
            stream = int.from_bytes(self._received[at + 5 : at + 9], "big")
            self._handle(kind, flags, stream, self._received[at + 9 : at + 9 + length])
            at += 9 + length
        del self._received[:at]

    def _handle(self, kind: int, flags: int, stream: int, payload: bytearray) -> None:
        if kind == _DATA:
            self._answer += payload[1 : -payload[0] or None] if flags & _PADDED else payload
            self._make_room(len(payload))
        elif kind == _SETTINGS and not flags & _ACK:
            self._settle(payload)
        elif kind == _WINDOW:
            more = _LENGTH.unpack(payload)[0]
            if stream == 0:
                self._window += more
            elif stream == self._stream:
                self._stream_window += more
        elif kind == _PING and not flags & _ACK:
            self._connection.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RESET, _GOAWAY):
            raise ConnectionError(f"the server ended the call: frame {kind}, {bytes(payload)!r}")
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM and stream == self._stream:
            self._ended = True

    def _settle(self, payload: bytearray) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW:
                self._stream_window += value - self._initial
                self._initial = value
            elif key == _MAX_FRAME:
                self._frame_size = value
        self._connection.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        self._settled = True

    def _make_room(self, taken: int) -> None:
        self._room -= taken
        if self._room < _ROOM // 2:
            more = _LENGTH.pack(_ROOM - self._room)
            self._connection.sendall(_frame(_WINDOW, 0, 0, more))
            self._room = _ROOM


def _header_block(path: str, port: int) -> bytes:
    """Literal headers (RFC 7541): POST and http by their index, nothing that needs a table."""
    fields = [(b"te", b"trailers"), (b"content-type", b"application/grpc")]
    block = b"\x83\x86" + b"\x04" + _text(path.encode()) + b"\x01" + _text(f"x:{port}".encode())
    return block + b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(value: bytes) -> bytes:
    length = len(value)
    if length < 127:
        return bytes([length]) + value
    # an integer with a prefix of seven bits (RFC 7541, section 5.1)
    head, length = bytearray(b"\x7f"), length - 127
    while length >= 128:
        head.append(length % 128 | 128)
        length //= 128
    return bytes([*head, length]) + value


def _frame_head(kind: int, flags: int, stream: int, length: int) -> bytes:
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")


def _frame(kind: int, flags: int, stream: int, payload: bytes | bytearray) -> bytes:
    return _frame_head(kind, flags, stream, len(payload)) + payload
