"""What nobody sends on purpose: cut off, garbled, huge. The server answers it or hangs up, and goes
on as before."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
import pytest
from asked import ask, call, channel, grpc_request, infer, infer_json, tensor_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_bundles import scaled, scaled_truth

from deploy.serving.background import serving
from deploy.serving.options import Options

X = np.array([[1.5, -2, 3], [0, 0.25, 9]], np.float32)
FIELDS = ["name", "datatype", "shape", "data", "parameters"]
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    bundle = scaled(tmp_path_factory.mktemp("bad") / "b")
    options = Options(
        bundle, http_port=0, grpc_port=0, max_request_bytes=1 << 16, linger_s=0, timeout_s=5
    )
    with serving(options) as made:
        yield made


@pytest.fixture(autouse=True)
def still_right(running: Any) -> Iterator[None]:
    """After whatever a test did, the next request is answered rightly and nothing is held."""
    yield
    np.testing.assert_array_equal(infer_json(running, X).tensor(), scaled_truth(X))
    figures = ask(running, "GET", "/metrics").body.decode()
    assert "deploy_held_bytes 0.0" in figures
    assert 'code="internal"' not in figures


def talk(running: Any, data: bytes) -> bytes:
    """What comes back for these bytes when the sender then stops sending."""
    got = b""
    address = ("127.0.0.1", running.ports.http)
    # the server may hang up on what it won't read
    with socket.create_connection(address, timeout=20) as opened, suppress(OSError):
        opened.sendall(data)
        opened.shutdown(socket.SHUT_WR)
        while piece := opened.recv(1 << 16):
            got += piece
    return got


def request_bytes(body: bytes, *headers: str, length: int | None = None) -> bytes:
    announced = len(body) if length is None else length
    head = ["POST /v2/models/tiny/infer HTTP/1.1", "host: x", f"content-length: {announced}"]
    return "\r\n".join([*head, *headers, "", ""]).encode() + body


GOOD = json.dumps({"inputs": [tensor_row("x", X)]}).encode()


@FEW
@given(VALUES)
def test_any_json(running: Any, value: Any) -> None:
    assert infer(running, json.dumps(value).encode()).status == 400


@FEW
@given(
    st.dictionaries(st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), VALUES)
)
def test_any_value_in_a_tensor(running: Any, changed: dict[str, Any]) -> None:
    row = {**tensor_row("x", X), **changed}
    answer = infer(running, json.dumps({"inputs": [row]}).encode())
    assert answer.status in (200, 400, 413)
    assert answer.status == 200 or answer.error


@FEW
@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_bytes(running: Any, body: bytes, length: int) -> None:
    headers = {"inference-header-content-length": str(length)}
    assert infer(running, body, headers=headers).status == 400


@FEW
@given(st.integers(0, len(GOOD) - 1))
def test_a_body_that_ends_early(running: Any, cut: int) -> None:
    assert b" 200 " not in talk(running, request_bytes(GOOD[:cut], length=len(GOOD)))[:20]


@FEW
@given(st.binary(max_size=300))
def test_no_http_at_all(running: Any, data: bytes) -> None:
    assert b" 200 " not in talk(running, data)[:20]


@pytest.mark.parametrize(
    "head",
    [
        request_bytes(GOOD, "x-long: " + "y" * (1 << 20)),
        request_bytes(GOOD, *(f"x-{i}: {'y' * 100}" for i in range(2000))),
        b"GET /" + b"a" * (1 << 17) + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["one long header", "many headers", "a long path"],
)
def test_huge_headers(running: Any, head: bytes) -> None:
    got = talk(running, head)
    # or it hung up on a sender that went on sending
    assert got == b"" or got.startswith(b"HTTP/1.1 431 ")


def test_headers_that_are_a_little_too_large_are_told_why(running: Any) -> None:
    answer = ask(running, "GET", "/v2", headers={"x-long": "y" * 40_000})
    assert answer.status == 431
    assert "headers of more than 32768 bytes" in answer.error


BROKEN = {
    "negative length": "content-length: -1\r\n\r\n",
    "length is no number": "content-length: 9e9\r\n\r\n",
    "two lengths": "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "no chunk": "transfer-encoding: chunked\r\n\r\nzz\r\n",
    "no header": "what is this\r\n\r\n",
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_http(running: Any, case: str) -> None:
    got = talk(running, f"POST /v2/models/tiny/infer HTTP/1.1\r\n{BROKEN[case]}".encode())
    assert got.startswith(b"HTTP/1.1 400 ")
    assert b"Invalid HTTP request" in got


@pytest.mark.parametrize(
    "data", [b"POST / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
)
def test_another_protocol(running: Any, data: bytes) -> None:
    assert talk(running, data).startswith(b"HTTP/1.1 400 ")


def test_two_requests_at_once_on_one_connection(running: Any) -> None:
    other = json.dumps({"id": "b", "inputs": [tensor_row("x", X + 1)]}).encode()
    sent = request_bytes(GOOD) + request_bytes(other, "connection: close")
    with socket.create_connection(("127.0.0.1", running.ports.http), timeout=20) as opened:
        opened.sendall(sent)
        got = b""
        while piece := opened.recv(1 << 16):
            got += piece
    assert got.count(b"HTTP/1.1 200 OK") == 2
    answers = [json.loads(part) for part in re.findall(rb"\{.*\}", got)]
    for answer, x in zip(answers, (X, X + 1), strict=True):
        np.testing.assert_array_equal(
            np.float32(answer["outputs"][0]["data"]), scaled_truth(x).ravel()
        )


@FEW
@given(st.binary(max_size=300))
def test_any_message(running: Any, raw: bytes) -> None:
    with channel(running) as opened, pytest.raises(grpc.RpcError) as caught:
        call(opened, "ModelInfer", raw)
    error: Any = caught.value
    assert error.code().name in ("INVALID_ARGUMENT", "NOT_FOUND")


@FEW
@given(st.data())
def test_a_message_with_flipped_bytes(running: Any, data: Any) -> None:
    raw = bytearray(grpc_request(running, X).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with channel(running) as opened:
        try:
            call(opened, "ModelInfer", bytes(raw))
        except grpc.RpcError as error:
            caught: Any = error
            assert caught.code().name in ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED")


@FEW
@given(st.binary(max_size=300))
def test_no_grpc_at_all(running: Any, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", running.ports.grpc), timeout=20) as open_socket:
        open_socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + data)
    assert len(infer_json(running, X).body) > 0
