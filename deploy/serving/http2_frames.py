"""HTTP/2 frames as bytes (RFC 9113): the numbers both sides use, and what a server sends."""

from __future__ import annotations

import struct
from collections.abc import Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
# section 6: kinds of frames
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
# section 6: flags, of which a kind has some
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20
# section 6.5.2: settings
HEADER_TABLE, ENABLE_PUSH, MOST_STREAMS, INITIAL_WINDOW, FRAME_SIZE, HEADER_LIST = range(1, 7)
# section 7: error codes
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11
# section 6.9.1
MOST_WINDOW = (1 << 31) - 1
DEFAULT_WINDOW = (1 << 16) - 1
DEFAULT_FRAME_SIZE = 1 << 14
MOST_FRAME_SIZE = (1 << 24) - 1
_NUMBER = struct.Struct(">I")
_SETTING = struct.Struct(">HI")


class ConnectionFault(Exception):  # noqa: N818
    """The peer broke the protocol: the connection ends with this error code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return frame_head(kind, flags, stream, len(payload)) + payload


def frame_head(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The nine bytes before a payload."""
    return b"".join(
        (length.to_bytes(3, "big"), bytes((kind, flags)), stream.to_bytes(4, "big")),
    )


def settings(values: Mapping[int, int]) -> bytes:
    """A frame of settings."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a frame in their order; ConnectionFault when they can't be."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"settings of {len(payload)} bytes")
    found = list(_SETTING.iter_unpack(payload))
    for key, value in found:
        if key == INITIAL_WINDOW and value > MOST_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, f"an initial window of {value}")
        if key == FRAME_SIZE and not DEFAULT_FRAME_SIZE <= value <= MOST_FRAME_SIZE:
            raise ConnectionFault(PROTOCOL_ERROR, f"frames of at most {value} bytes")
    return found


def number(payload: bytes, what: str) -> int:
    """The 31-bit number that is a frame's whole payload."""
    if len(payload) != _NUMBER.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"{what} of {len(payload)} bytes")
    return int(_NUMBER.unpack(payload)[0]) & MOST_WINDOW


def window(stream: int, more: int) -> bytes:
    """Leave to send so much more."""
    return frame(WINDOW, 0, stream, _NUMBER.pack(more))


def reset(stream: int, code: int) -> bytes:
    """The end of one stream before its time."""
    return frame(RESET, 0, stream, _NUMBER.pack(code))


def goaway(last: int, code: int, reason: str = "") -> bytes:
    """The end of the connection: streams above `last` weren't begun."""
    return frame(GOAWAY, 0, 0, _NUMBER.pack(last) + _NUMBER.pack(code) + reason.encode()[:200])


def unpadded(flags: int, payload: bytes) -> bytes:
    """What of a HEADERS frame is the header block."""
    padding = 0
    if flags & PADDED:
        if not payload:
            raise ConnectionFault(FRAME_SIZE_ERROR, "padded headers without a length of padding")
        padding, payload = payload[0], payload[1:]
    if flags & PRIORITIZED:
        if len(payload) < 5:
            raise ConnectionFault(FRAME_SIZE_ERROR, "headers that end within their priority")
        payload = payload[5:]
    if padding > len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "more padding than frame")
    return payload[: len(payload) - padding]


def header_block(fields: Mapping[bytes, bytes]) -> bytes:
    """Headers as literals that enter no table (RFC 7541, section 6.2.2), so that a block is the
    same bytes every time."""
    return b"".join(b"\0" + _text(name.lower()) + _text(value) for name, value in fields.items())


def _text(value: bytes) -> bytes:
    length = len(value)
    if length < 127:
        return bytes((length,)) + value
    # an integer with a prefix of seven bits (RFC 7541, section 5.1)
    head = bytearray(b"\x7f")
    length -= 127
    while length >= 128:
        head.append(length % 128 | 128)
        length //= 128
    head.append(length)
    return bytes(head) + value
