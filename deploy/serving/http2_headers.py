"""Header blocks: put together from their frames, decoded, bounded."""

from __future__ import annotations

from hpack import Decoder, HPACKError
from hpack.table import HeaderTable

from deploy.serving import http2_frames as h2
from deploy.serving.http2_frames import ConnectionFault

MOST_HEADER_BYTES = 32 << 10
Fields = list[tuple[bytes, bytes]]
_MOST_KNOWN = 16
_KNOWN_BYTES = 1 << 10


class HeaderBlocks:
    """The header blocks of one connection, which share a table and so come one after the other."""

    def __init__(self) -> None:
        # what is only a little too large can still be told why
        self._decoder = Decoder(max_header_list_size=4 * MOST_HEADER_BYTES)
        self._table = self._decoder.header_table = _Table()
        # a client sends the same block again and again; it means the same while the table stays
        self._known: dict[bytes, Fields] = {}
        self._stream = 0
        self._flags = 0
        self._block = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a block goes on: only CONTINUATION may follow."""
        return bool(self._stream)

    def begin(self, stream: int, flags: int, payload: bytes) -> tuple[bool, Fields] | None:
        """Whether the stream ends here, and the headers; None while CONTINUATION is to come."""
        self._stream, self._flags = stream, flags
        self._block = bytearray(h2.unpadded(flags, payload))
        return self._taken(flags)

    def go_on(self, stream: int, flags: int, payload: bytes) -> tuple[bool, Fields] | None:
        """The same for a CONTINUATION."""
        if stream != self._stream:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "headers of two streams mixed")
        self._block += payload
        if len(self._block) > 2 * MOST_HEADER_BYTES:
            raise ConnectionFault(
                h2.ENHANCE_YOUR_CALM, f"headers of {len(self._block)} bytes and more"
            )
        return self._taken(flags)

    def _taken(self, flags: int) -> tuple[bool, Fields] | None:
        if not flags & h2.END_HEADERS:
            return None
        self._stream = 0
        return bool(self._flags & h2.END_STREAM), self._decoded(bytes(self._block))

    def _decoded(self, block: bytes) -> Fields:
        known = self._known.get(block)
        if known is not None:
            return known
        changes = self._table.changes
        try:
            fields: Fields = [(f[0], f[1]) for f in self._decoder.decode(block, raw=True)]
        except HPACKError as error:
            raise ConnectionFault(h2.COMPRESSION_ERROR, f"headers: {error}") from None
        # an entry came, or the block begins with another size of the table (RFC 7541, 6.3)
        changed = self._table.changes != changes or (block and block[0] & 0xE0 == 0x20)
        if changed or len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        # what changed the table isn't the same twice
        if not changed and len(block) <= _KNOWN_BYTES:
            self._known[block] = fields
        return fields


class _Table(HeaderTable):
    """Counts the entries that come."""

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)


def too_many(fields: Fields) -> bool:
    """Whether the headers are more than the limit, counted as RFC 9113 (6.5.2) counts them."""
    return sum(len(name) + len(value) + 32 for name, value in fields) > MOST_HEADER_BYTES
