"""The tensors of a ModelInferRequest without the two copies that protobuf makes of them.

Only the top level of the message is looked at: its large `raw_input_contents` are left where they
are, protobuf parses all the rest. Whatever looks unusual is protobuf's to judge.
"""

from __future__ import annotations

# below, copies cost less than looking
_LARGE = 1 << 16
# of a request that isn't made to keep us busy
_MOST_FIELDS = 256
# field 7, length-delimited
_RAW = 7 << 3 | 2


def raw_apart(data: bytes | memoryview) -> tuple[bytes | memoryview, list[memoryview]]:
    """The message without its raw tensors, and these as views; all of it and none if in doubt."""
    if len(data) < _LARGE:
        return data, []
    view = memoryview(data)
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    at = 0
    for _ in range(_MOST_FIELDS):
        if at == len(data):
            return b"".join(kept), raw
        begin = at
        try:
            tag, at = _varint(data, at)
            size, at = _varint(data, at) if tag & 7 in (0, 2) else (0, at)
        except IndexError:
            break
        if tag & 7 == 2:
            at += size
        elif tag & 7 != 0:
            break
        if at > len(data):
            break
        if tag == _RAW:
            raw.append(view[at - size : at])
        else:
            kept.append(view[begin:at])
    return data, []


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A number of at most ten bytes and where it ends; IndexError when it doesn't."""
    value = 0
    for place in range(10):
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError(at)
