"""HTTP/2: the same whichever way it arrives, windows and sizes kept, and every breach ends the
connection with its code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hpack import Encoder
from http2_peer import HELLO, Echo, InPlace, Transport, block, data, feed, headers, indexed, talk
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.serving import http2_connection, http2_sending
from deploy.serving import http2_frames as h2
from deploy.serving.http2_connection import MOST_STREAMS, Connection
from deploy.serving.http2_frames import ConnectionFault, frame

WHOLE = bytes(range(256)) * 40


def answered(transport: Transport, stream: int = 1) -> bytes:
    return b"".join(f.payload for f in transport.frames(h2.DATA) if f.stream == stream)


def test_a_stream_is_answered_with_both_ends_of_headers() -> None:
    frames = talk(HELLO + headers(1) + data(1, WHOLE)).frames()
    assert [f.kind for f in frames[:2]] == [h2.SETTINGS, h2.WINDOW]
    ours = [f for f in frames if f.stream == 1]
    assert ours[0].kind == ours[-1].kind == h2.HEADERS
    assert (ours[0].flags, ours[-1].flags) == (h2.END_HEADERS, h2.END_HEADERS | h2.END_STREAM)
    assert b"".join(f.payload for f in ours[1:-1]) == WHOLE
    assert all(f.kind == h2.DATA and len(f.payload) <= 1 << 14 for f in ours[1:-1])
    assert frame(h2.SETTINGS, h2.ACK, 0) in talk(HELLO).sent


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 3000)), st.booleans(), st.integers(0, 255), st.integers(1, 9999))
def test_it_may_arrive_in_any_pieces(
    chunks: list[int], direct: bool, padding: int, cut: int
) -> None:
    make: Callable[..., Any] = (
        (lambda connection, stream: InPlace(connection, stream, len(WHOLE))) if direct else Echo
    )
    padded = bytes([padding]) + WHOLE[cut:] + bytes(padding)
    sent = (
        HELLO
        + headers(1)
        + data(1, WHOLE[:cut], last=False)
        + frame(h2.DATA, h2.PADDED | h2.END_STREAM, 1, padded)
        + frame(h2.PING, 0, 0, b"12345678")
    )
    found = talk(sent, chunks, make)
    assert answered(found) == WHOLE
    assert found.frames(h2.PING)[0].payload == b"12345678"
    assert not found.closed


def test_a_payload_is_read_to_where_it_belongs() -> None:
    calls: list[InPlace] = []

    def make(connection: Connection, stream: Any) -> InPlace:
        calls.append(InPlace(connection, stream, len(WHOLE)))
        return calls[0]

    begin = HELLO + headers(1) + data(1, WHOLE)
    talk(begin, [len(begin) - len(WHOLE) + 5], make)
    assert calls[0].direct == len(WHOLE) - 5


def test_headers_in_several_frames_padded_and_with_a_priority() -> None:
    whole = block()
    first = bytes([3]) + bytes(5) + whole[:7] + bytes(3)
    sent = frame(h2.HEADERS, h2.PADDED | h2.PRIORITIZED, 1, first)
    sent += frame(h2.CONTINUATION, 0, 1, whole[7:20])
    sent += frame(h2.CONTINUATION, h2.END_HEADERS, 1, whole[20:])
    found = talk(HELLO + sent + data(1, b"abc"), make=Echo)
    assert answered(found) == b"abc"


def test_headers_by_their_index() -> None:
    """A block that is only numbers means what the table says when it comes."""
    encoder = Encoder()
    seen: list[dict[bytes, bytes]] = []

    def make(connection: Connection, stream: Any) -> Echo:
        seen.append(stream.headers)
        return Echo(connection, stream)

    sent = HELLO
    fields = [{":method": "POST", "a": "1"}, {":method": "POST", "a": "1"}, {"b": "2"}]
    fields += [{":method": "POST", "a": "1"}] * 2
    for number, one in enumerate(fields):
        flags = h2.END_HEADERS | h2.END_STREAM
        sent += frame(h2.HEADERS, flags, 2 * number + 1, indexed(one, encoder))
    talk(sent, make=make)
    assert seen == [{k.encode(): v.encode() for k, v in one.items()} for one in fields]


def test_an_index_means_what_the_table_says_now() -> None:
    """The same byte, before and after another entry came, and after the table was emptied."""
    first, second = b"\x40\x01a\x011", b"\x40\x01b\x012"
    emptied = b"\x20\x3f\xe1\x1f\x82"
    seen: list[dict[bytes, bytes]] = []

    def make(connection: Connection, stream: Any) -> Echo:
        seen.append(stream.headers)
        return Echo(connection, stream)

    blocks = [first, b"\xbe", b"\xbe", second, b"\xbe", b"\xbe", emptied, b"\xbe"]
    sent = b"".join(frame(h2.HEADERS, 5, 2 * i + 1, one) for i, one in enumerate(blocks))
    found = talk(HELLO + sent, make=make)
    a, b = {b"a": b"1"}, {b"b": b"2"}
    assert seen == [a, a, a, b, b, b, {b":method": b"GET"}]
    assert found.fault() == h2.COMPRESSION_ERROR


def test_the_peers_windows_are_kept() -> None:
    small = h2.PREFACE + h2.settings({h2.INITIAL_WINDOW: 10})
    sent = small + headers(1) + data(1, b"x" * 100) + headers(3) + data(3, b"y" * 5)

    def widen(connection: Connection, transport: Transport) -> None:
        assert answered(transport, 1) == b"x" * 10
        assert answered(transport, 3) == b"y" * 5
        feed(connection, h2.window(1, 20))
        assert answered(transport, 1) == b"x" * 30
        feed(connection, h2.settings({h2.INITIAL_WINDOW: 15}))
        assert answered(transport, 1) == b"x" * 35
        feed(connection, h2.settings({h2.INITIAL_WINDOW: 5}) + h2.window(1, 9))
        assert answered(transport, 1) == b"x" * 35
        feed(connection, h2.window(1, 1000))
        assert answered(transport, 1) == b"x" * 100

    talk(sent, after=widen)


def test_the_window_of_the_whole_connection_is_kept() -> None:
    wide = h2.PREFACE + h2.settings({h2.INITIAL_WINDOW: 1 << 20, h2.FRAME_SIZE: 1 << 20})
    sent = wide + headers(1) + data(1, bytes(100_000))

    def widen(connection: Connection, transport: Transport) -> None:
        assert [len(f.payload) for f in transport.frames(h2.DATA)] == [65_535]
        feed(connection, h2.window(0, 50_000))
        assert [len(f.payload) for f in transport.frames(h2.DATA)] == [65_535, 34_465]

    talk(sent, after=widen)


def test_a_peer_that_reads_slowly_is_waited_for() -> None:
    def slow(connection: Connection, transport: Transport) -> None:
        connection.pause_writing()
        feed(connection, headers(1) + data(1, WHOLE))
        assert answered(transport) == b""
        connection.resume_writing()
        assert answered(transport) == WHOLE

    talk(HELLO, after=slow)


def test_we_make_room_for_what_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_connection, "_WINDOW", 1000)
    found = talk(HELLO + headers(1) + data(1, bytes(300), last=False) + data(1, bytes(300)))
    assert found.frames(h2.WINDOW)[-1].payload == (600).to_bytes(4)


FAULTS = {
    "another protocol": (b"GET / HTTP/1.1\r\n\r\n", h2.PROTOCOL_ERROR),
    "half a setting": (HELLO + frame(h2.SETTINGS, 0, 0, b"12345"), h2.FRAME_SIZE_ERROR),
    "a window of 2**31": (
        *(HELLO + h2.settings({h2.INITIAL_WINDOW: 1 << 31}), h2.FLOW_CONTROL_ERROR),
    ),
    "frames of one byte": (HELLO + h2.settings({h2.FRAME_SIZE: 1}), h2.PROTOCOL_ERROR),
    "a server's stream": (HELLO + headers(2), h2.PROTOCOL_ERROR),
    "headers on no stream": (HELLO + headers(0), h2.PROTOCOL_ERROR),
    "data on no stream": (HELLO + data(0, b"x"), h2.PROTOCOL_ERROR),
    "data before headers": (HELLO + data(1, b"x"), h2.PROTOCOL_ERROR),
    "a lone continuation": (HELLO + frame(h2.CONTINUATION, 4, 1, b""), h2.PROTOCOL_ERROR),
    "a ping amid headers": (
        HELLO + headers(1, flags=0) + frame(h2.PING, 0, 0, bytes(8)),
        h2.PROTOCOL_ERROR,
    ),
    "headers of two streams": (
        HELLO + headers(1, flags=0) + frame(h2.CONTINUATION, 4, 3, b""),
        h2.PROTOCOL_ERROR,
    ),
    "headers all padding": (
        *(HELLO + frame(h2.HEADERS, h2.PADDED | 4, 1, b"\xff\x88"), h2.PROTOCOL_ERROR),
    ),
    "headers without padding": (
        *(HELLO + frame(h2.HEADERS, h2.PADDED | 4, 1, b""), h2.FRAME_SIZE_ERROR),
    ),
    "half a priority": (
        *(HELLO + frame(h2.HEADERS, h2.PRIORITIZED | 4, 1, b"123"), h2.FRAME_SIZE_ERROR),
    ),
    "headers that are none": (*(HELLO + frame(h2.HEADERS, 4, 1, b"\xbe"), h2.COMPRESSION_ERROR),),
    "endless headers": (
        HELLO
        + headers(1, flags=0)
        + frame(h2.CONTINUATION, 0, 1, bytes(40_000))
        + frame(h2.CONTINUATION, 0, 1, bytes(40_000)),
        h2.ENHANCE_YOUR_CALM,
    ),
    "a long frame": (HELLO + frame(h2.SETTINGS, 0, 0, bytes(1 << 16)), h2.FRAME_SIZE_ERROR),
    "data all padding": (
        *(HELLO + headers(1) + frame(h2.DATA, h2.PADDED, 1, b"\x05abc"), h2.PROTOCOL_ERROR),
    ),
    "data without padding": (
        *(HELLO + headers(1) + frame(h2.DATA, h2.PADDED, 1, b""), h2.FRAME_SIZE_ERROR),
    ),
    "a wider window by 0": (HELLO + h2.window(0, 0), h2.FLOW_CONTROL_ERROR),
    "too wide a window": (HELLO + h2.window(0, h2.MOST_WINDOW), h2.FLOW_CONTROL_ERROR),
    "too wide a stream": (
        *(HELLO + headers(1) + h2.window(1, h2.MOST_WINDOW), h2.FLOW_CONTROL_ERROR),
    ),
    "half a window": (HELLO + frame(h2.WINDOW, 0, 0, b"12"), h2.FRAME_SIZE_ERROR),
    "half a ping": (HELLO + frame(h2.PING, 0, 0, b"12"), h2.FRAME_SIZE_ERROR),
    "half a reset": (HELLO + headers(1) + frame(h2.RESET, 0, 1, b"12"), h2.FRAME_SIZE_ERROR),
    "a reset of nothing": (HELLO + h2.reset(1, h2.CANCEL), h2.PROTOCOL_ERROR),
    "a push": (HELLO + frame(h2.PUSH, 4, 1, bytes(4)), h2.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("case", FAULTS)
@pytest.mark.parametrize("chunks", [(), [1] * 300], ids=["whole", "bytewise"])
def test_a_breach_ends_the_connection(case: str, chunks: list[int]) -> None:
    sent, code = FAULTS[case]
    found = talk(sent + headers(99) + data(99, b"more"), chunks)
    assert found.fault() == code
    assert answered(found, 99) == b""


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 11), st.integers(0, 63), st.integers(0, 7), st.binary(max_size=40)
        ),
        max_size=12,
    ),
    st.lists(st.integers(1, 30)),
)
def test_any_frames_end_well(frames: list[tuple[int, int, int, bytes]], chunks: list[int]) -> None:
    """Nothing but a GOAWAY with a code of the protocol, never an internal error."""
    found = talk(HELLO + b"".join(frame(*one) for one in frames), chunks)
    assert all(f.code != h2.INTERNAL_ERROR for f in found.frames(h2.GOAWAY))


def test_data_amid_headers() -> None:
    """Also of a stream that is open, and at once."""
    sent = HELLO + headers(1) + headers(3, flags=0) + data(1, b"x")
    assert talk(sent).fault() == h2.PROTOCOL_ERROR


def test_what_nobody_foresaw_ends_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    def broken(connection: Connection, stream: Any) -> Any:
        raise ZeroDivisionError("oh")

    assert talk(HELLO + headers(1), make=broken).fault() == h2.INTERNAL_ERROR
    assert "internal error: oh" in caplog.text


def test_too_many_streams_are_refused_one_by_one() -> None:
    sent = b"".join(headers(2 * i + 1) for i in range(MOST_STREAMS + 1))
    last = 2 * MOST_STREAMS + 1
    found = talk(HELLO + sent + data(last, b"dropped") + data(1, b"taken"))
    assert [(f.stream, f.code) for f in found.frames(h2.RESET)] == [(last, h2.REFUSED_STREAM)]
    assert answered(found, 1) == b"taken"


def test_streams_reset_again_and_again() -> None:
    """Each costs us more than the peer (CVE-2023-44487)."""
    once = [headers(2 * i + 1) + h2.reset(2 * i + 1, h2.CANCEL) for i in range(2000)]
    assert talk(HELLO + b"".join(once)).fault() == h2.ENHANCE_YOUR_CALM
    # a client whose calls run into their deadlines all at once
    assert not talk(HELLO + b"".join(once[:300])).closed
    fair = [headers(2 * i + 1) + data(2 * i + 1, b"") for i in range(2000)]
    assert not talk(HELLO + b"".join(fair)).closed
    # as many resets as there were answers
    assert not talk(HELLO + b"".join(fair) + _numbered(once[:1500], 4001)).closed


def _numbered(frames: Sequence[bytes], first: int) -> bytes:
    """The same for further streams."""
    return b"".join(
        headers(first + 2 * i) + h2.reset(first + 2 * i, h2.CANCEL) for i in range(len(frames))
    )


def test_settings_again_and_again() -> None:
    """Each may touch every stream."""
    many = b"".join(h2.settings({h2.INITIAL_WINDOW: i}) for i in range(1500))
    assert talk(HELLO + many).fault() == h2.ENHANCE_YOUR_CALM
    assert not talk(HELLO + h2.settings({h2.INITIAL_WINDOW: 5}) * 100).closed


def test_of_a_setting_given_twice_the_last_one_holds() -> None:
    twice = frame(
        h2.SETTINGS, 0, 0, b"".join(h2.settings({h2.INITIAL_WINDOW: n})[9:] for n in (0, 3))
    )
    found = talk(HELLO + twice + headers(1) + data(1, b"12345"))
    assert answered(found) == b"123"


def test_refusals_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_sending, "_MOST_OWED", 10)

    def make(connection: Connection, stream: Any) -> None:
        connection.refuse(stream, b"\x88")

    def deaf(connection: Connection, transport: Transport) -> None:
        connection.pause_writing()
        feed(connection, b"".join(headers(2 * i + 1) for i in range(12)))
        assert transport.aborted

    talk(HELLO, make=make, after=deaf)


def test_room_that_was_offered_and_not_used_is_asked_for_again() -> None:
    """asyncio asks for a buffer, finds nothing to read, and the call is refused meanwhile."""
    calls: list[InPlace] = []

    def make(connection: Connection, stream: Any) -> InPlace:
        calls.append(InPlace(connection, stream, 10))
        return calls[-1]

    def between(connection: Connection, transport: Transport) -> None:
        connection.get_buffer(-1)
        calls[0].space = lambda: None  # type: ignore[method-assign]
        feed(connection, b"67890")
        assert calls[0].direct == 0
        assert calls[0].filled == 10

    talk(HELLO + headers(1) + data(1, b"1234567890")[:14], make=make, after=between)


def test_a_peer_that_asks_and_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_sending, "_MOST_OWED", 10)
    pings = frame(h2.PING, 0, 0, bytes(8)) * 11
    assert not talk(HELLO + pings).aborted

    def deaf(connection: Connection, transport: Transport) -> None:
        connection.pause_writing()
        feed(connection, pings)
        assert transport.aborted

    talk(HELLO, after=deaf)


def test_a_stream_that_ends_early_tells_its_call() -> None:
    calls: list[Echo] = []

    def make(connection: Connection, stream: Any) -> Echo:
        calls.append(Echo(connection, stream))
        return calls[-1]

    found = talk(HELLO + headers(1) + headers(3) + h2.reset(1, h2.CANCEL), make=make)
    assert [call.gone for call in calls] == [True, True]
    assert answered(found) == b""


def test_it_goes_away_after_the_last_answer() -> None:
    def leave(connection: Connection, transport: Transport) -> None:
        connection.going_away()
        feed(connection, headers(3))
        connection.go_away()
        assert [int.from_bytes(f.payload[:4]) for f in transport.frames(h2.GOAWAY)] == [
            h2.MOST_WINDOW,
            3,
        ]
        feed(connection, headers(5) + data(5, b"dropped"))
        assert transport.frames(h2.RESET)[0].code == h2.REFUSED_STREAM
        feed(connection, data(1, b"one"))
        assert not transport.closed
        feed(connection, data(3, b"three"))
        assert transport.closed
        assert answered(transport, 3) == b"three"

    talk(HELLO + headers(1), after=leave)


def test_a_long_header_is_written_with_a_long_length() -> None:
    for size in (126, 127, 254, 255, 40_000):
        value = b"v" * size
        assert indexed_back(h2.header_block({b"Name": value})) == [(b"name", value)]


def indexed_back(raw: bytes) -> list[tuple[bytes, bytes]]:
    from hpack import Decoder

    decoder = Decoder(max_header_list_size=1 << 20)
    return [(f[0], f[1]) for f in decoder.decode(raw, raw=True)]


def test_a_fault_says_why() -> None:
    fault = ConnectionFault(h2.PROTOCOL_ERROR, "why")
    assert (fault.code, fault.reason, str(fault)) == (h2.PROTOCOL_ERROR, "why", "why")
