"""A gRPC call on its stream: one whole message, in time and of a form that is taken, or a status
that says why not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from asked import ask, call, channel, grpc_request, infer_grpc, over_grpc
from http2_peer import HELLO, data, headers, over_socket, status, whole_frames
from serving_bundles import scaled, scaled_truth

from deploy.serving import http2_connection
from deploy.serving import http2_frames as h2
from deploy.serving.background import serving
from deploy.serving.body import Body, Budget
from deploy.serving.grpc_messages import SERVICE
from deploy.serving.options import Options

X = np.array([[1.5, -2, 3], [0, 0.25, 9]], np.float32)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    bundle = scaled(tmp_path_factory.mktemp("call") / "b")
    options = Options(bundle, http_port=0, grpc_port=0, timeout_s=0.4, linger_s=0)
    with serving(options) as made:
        yield made


@pytest.fixture(autouse=True)
def still_right(running: Any) -> Iterator[None]:
    """After whatever a test did, the next request is answered rightly and nothing is held."""
    yield
    np.testing.assert_array_equal(over_grpc(running, X), scaled_truth(X))
    assert b"deploy_held_bytes 0.0" in ask(running, "GET", "/metrics").body


def told(running: Any, sent: bytes) -> tuple[str, str]:
    """Status and reason of a call."""
    found = status(over_socket(running.ports.grpc, HELLO + sent))
    assert found[":status"] == "200"
    return found["grpc-status"], found.get("grpc-message", "")


def message(running: Any) -> bytes:
    raw: bytes = grpc_request(running, X).SerializeToString()
    return b"\0" + len(raw).to_bytes(4) + raw


def test_one_message(running: Any) -> None:
    assert told(running, headers(1) + data(1, message(running))) == ("0", "")


WRONG: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "none": (lambda m: data(1, b""), "3", "the stream ended before its message did"),
    "half": (lambda m: data(1, m[:-1]), "3", "the stream ended before its message did"),
    "half a length": (lambda m: data(1, m[:3]), "3", "the stream ended before its message did"),
    "two": (lambda m: data(1, m + m), "3", "more than one message; the procedures here take one"),
    "compressed": (
        *(lambda m: data(1, b"\1" + m[1:]), "12"),
        "the message is compressed; send it as it is",
    ),
    "endless": (
        *(lambda m: data(1, b"\0\xff\xff\xff\xff" + m, last=False), "8"),
        "a request of 4294967295 bytes or more; at most 67108864 are taken (--max-request-bytes)",
    ),
    "late": (
        *(lambda m: data(1, m[:20], last=False), "4"),
        "the message didn't arrive within 0.4 s; send it faster",
    ),
    "never": (lambda m: b"", "4", "the message didn't arrive within 0.4 s; send it faster"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_message(running: Any, case: str) -> None:
    change, code, reason = WRONG[case]
    assert told(running, headers(1) + change(message(running))) == (code, reason)


def test_a_refused_stream_that_is_still_sending_is_reset(running: Any) -> None:
    sent = HELLO + headers(1) + data(1, b"\1" + bytes(4), last=False)
    frames = over_socket(running.ports.grpc, sent)
    ends = [f for f in frames if f.kind == h2.RESET]
    assert [(f.stream, f.code) for f in ends] == [(1, h2.NO_ERROR)]


def test_headers_that_are_wrong(running: Any) -> None:
    sent = data(1, message(running))
    found = told(running, headers(1, grpc_timeout="soon") + sent)
    assert found == ("3", "grpc-timeout 'soon'; give 1 to 8 digits and one of HMSmun")
    code, reason = told(running, headers(1, x_long="y" * 40_000) + sent)
    assert (code, reason) == ("8", "more headers than the 32768 bytes that are taken; send less")
    code, reason = told(running, headers(1, path="Train") + sent)
    assert (code, reason) == ("12", f"no procedure '/{SERVICE}/Train'; this is {SERVICE}")


def test_a_request_that_is_no_grpc(running: Any) -> None:
    sent = HELLO + headers(1, content_type="text/html") + data(1, b"")
    assert status(over_socket(running.ports.grpc, sent)) == {":status": "415"}


def test_a_callers_deadline_is_kept(running: Any) -> None:
    sent = data(1, message(running))
    assert told(running, headers(1, grpc_timeout="20S") + sent) == ("0", "")
    code, reason = told(running, headers(1, grpc_timeout="1n") + sent)
    assert code == "4"
    assert "too long" in reason or "before the deadline" in reason


def test_a_reason_in_any_letters(running: Any) -> None:
    request = grpc_request(running, X)
    request.model_name = "größe 100%\n"
    with pytest.raises(grpc.RpcError) as caught:
        infer_grpc(running, request)
    error: Any = caught.value
    assert error.details() == "no model 'größe 100%\\n'; this server has 'tiny'"


def test_a_compressed_call_of_the_official_client(running: Any) -> None:
    raw = grpc_request(running, np.zeros((500, 3), np.float32)).SerializeToString()
    with channel(running) as opened, pytest.raises(grpc.RpcError) as caught:
        opened.unary_unary(f"/{SERVICE}/ModelInfer")(raw, compression=grpc.Compression.Gzip)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_many_calls_at_once_on_one_connection(running: Any) -> None:
    raw = grpc_request(running, X).SerializeToString()
    with channel(running) as opened:
        asked = [opened.unary_unary(f"/{SERVICE}/ModelInfer").future(raw) for _ in range(100)]
        assert {len(one.result()) for one in asked} == {len(call(opened, "ModelInfer", raw))}


def test_an_answer_larger_than_the_clients_window(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    running = start(scaled(tmp_path / "b"))
    x = np.random.default_rng(0).normal(size=(200_000, 3)).astype(np.float32)
    np.testing.assert_array_equal(over_grpc(running, x), scaled_truth(x))


def test_an_answer_that_isnt_taken_is_given_up(running: Any) -> None:
    sent = h2.PREFACE + h2.settings({h2.INITIAL_WINDOW: 7}) + headers(1)
    sent += data(1, message(running))
    with socket.create_connection(("127.0.0.1", running.ports.grpc), timeout=20) as opened:
        opened.sendall(sent)
        got = b""
        while not any(f.kind == h2.RESET for f in whole_frames(got)):
            got += opened.recv(1 << 16)
        # the stream is gone, the connection isn't
        opened.sendall(h2.frame(h2.PING, 0, 0, bytes(8)))
        while not any(f.kind == h2.PING for f in whole_frames(got)):
            got += opened.recv(1 << 16)
    frames = whole_frames(got)
    assert [(f.stream, f.code) for f in frames if f.kind == h2.RESET] == [(1, h2.CANCEL)]
    assert [len(f.payload) for f in frames if f.kind == h2.DATA] == [7]


def test_more_connections_than_there_may_be(start: Callable[..., Any], tmp_path: Path) -> None:
    running = start(scaled(tmp_path / "b"), connections=2)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            address = ("127.0.0.1", running.ports.grpc)
            opened = stack.enter_context(socket.create_connection(address, timeout=20))
            # the ping's answer: the call before it was taken
            opened.sendall(HELLO + headers(1) + h2.frame(h2.PING, 0, 0, b"are here"))
            got = b""
            while b"are here" not in got:
                got += opened.recv(1 << 12)
        frames = over_socket(running.ports.grpc, b"")
    assert frames[-1].kind == h2.GOAWAY
    assert frames[-1].payload[8:] == b"2 connections are open already"


def test_one_that_is_not_used_makes_room(start: Callable[..., Any], tmp_path: Path) -> None:
    running = start(scaled(tmp_path / "b"), connections=2)
    with contextlib.ExitStack() as stack:
        idle = []
        for _ in range(2):
            address = ("127.0.0.1", running.ports.grpc)
            idle.append(stack.enter_context(socket.create_connection(address, timeout=20)))
            idle[-1].sendall(HELLO)
            assert idle[-1].recv(9)
        np.testing.assert_array_equal(over_grpc(running, X), scaled_truth(X))
        got = b""
        while piece := idle[0].recv(1 << 12):
            got += piece
        assert got.endswith(h2.goaway(0, h2.NO_ERROR))


def test_a_call_cancelled_before_its_first_step_holds_nothing(running: Any) -> None:
    """It comes whole with its reset behind it; `still_right` sees what is held."""
    sent = headers(1) + data(1, message(running)) + h2.reset(1, h2.CANCEL)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", running.ports.grpc), timeout=20) as opened:
            opened.sendall(HELLO + sent + h2.frame(h2.PING, 0, 0, b"are here"))
            got = b""
            while b"are here" not in got:
                got += opened.recv(1 << 12)


def test_what_was_released_counts_nothing_any_more() -> None:
    budget = Budget(100, 1000)
    body = Body(budget, 50)
    body.took(20)
    body.release()
    body.took(10)
    body.add(b"more")
    assert budget.held == 0


@pytest.mark.parametrize("sent", [b"", h2.PREFACE, HELLO + headers(1, flags=0)])
def test_headers_that_take_too_long(
    start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http2_connection, "HEADER_TIMEOUT_S", 0.05)
    running = start(scaled(tmp_path / "b"))
    with contextlib.suppress(ConnectionResetError):
        assert [f.kind for f in over_socket(running.ports.grpc, sent)][:1] == [h2.SETTINGS]


def test_a_body_ends_where_numbers_are_aligned() -> None:
    budget = Budget(1 << 20, 1 << 20)
    for size in (0, 1, 63, 64, 1001):
        body = Body(budget, size)
        assert len(body.space()) == size
        body.took(size)
        tail = np.frombuffer(body.data, np.uint8)
        assert (tail.ctypes.data + size) % 64 == 0
        assert tail.flags.writeable
        assert budget.held == size
        body.release()
        assert budget.held == 0
