"""A busy server: what waits, what is told to come back, what is given up."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from asked import (
    ask,
    grpc_request,
    infer,
    infer_grpc,
    infer_json,
    over_grpc,
    tensor_row,
)
from gate import until
from serving_bundles import scaled, scaled_truth

X = np.array([[1.5, -2, 3], [0, 0.25, 9]], np.float32)


def test_health_answers_while_the_engine_is_busy(busy: Callable[..., Any]) -> None:
    running, gate, first = busy()
    assert ask(running, "GET", "/v2/health/ready").status == 200
    gate.open()
    assert first.result().status == 200


def test_a_full_queue_is_told(busy: Callable[..., Any], pool: ThreadPoolExecutor) -> None:
    running, gate, first = busy(queue=2)
    waiting = [pool.submit(infer_json, running, X), pool.submit(over_grpc, running, X)]
    until(running, 2)
    answer = infer_json(running, X)
    assert (answer.status, answer.error) == (503, "2 requests wait already; try again later")
    with pytest.raises(grpc.RpcError, match="2 requests wait already") as caught:
        over_grpc(running, X)
    failure: Any = caught.value
    assert failure.code().name == "UNAVAILABLE"
    gate.open()
    assert first.result().status == waiting[0].result().status == 200
    np.testing.assert_array_equal(waiting[1].result(), scaled_truth(X))


def test_a_deadline_passes(busy: Callable[..., Any]) -> None:
    running, gate, first = busy(timeout_s=0.2)
    answer = infer_json(running, X)
    assert (answer.status, answer.error) == (504, "the engine didn't answer before the deadline")
    assert first.result().status == 504
    gate.open()


def test_a_callers_own_deadline_passes(busy: Callable[..., Any]) -> None:
    running, gate, first = busy()
    document = {"inputs": [tensor_row("x", X)], "parameters": {"timeout": 50_000}}
    assert infer(running, document).status == 504
    with pytest.raises(grpc.RpcError) as caught:
        infer_grpc(running, grpc_request(running, X), timeout=0.1)
    failure: Any = caught.value
    assert failure.code().name == "DEADLINE_EXCEEDED"
    gate.open()
    assert first.result().status == 200


def test_a_caller_that_leaves_is_not_run(busy: Callable[..., Any]) -> None:
    running, gate, first = busy()
    body = json.dumps({"inputs": [tensor_row("x", X)]}).encode()
    with socket.create_connection(("127.0.0.1", running.ports.http), timeout=20) as opened:
        head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
        opened.sendall(head.encode() + b"\r\n\r\n" + body)
        until(running, 1)
    gate.open()
    assert first.result().status == 200
    assert infer_json(running, X).status == 200


def test_a_slow_body_is_given_up(start: Callable[..., Any], tmp_path: Path) -> None:
    running = start(scaled(tmp_path / "b"), timeout_s=0.2)
    with socket.create_connection(("127.0.0.1", running.ports.http), timeout=20) as opened:
        opened.sendall(
            b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"
        )
        got = b""
        while piece := opened.recv(1 << 16):
            got += piece
    assert got.startswith(b"HTTP/1.1 408 ")
    assert b"didn't arrive within 0.2 s" in got


def test_slow_headers_are_given_up(
    start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.serving.http_protocol.HEADER_TIMEOUT_S", 0.1)
    running = start(scaled(tmp_path / "b"))
    with socket.create_connection(("127.0.0.1", running.ports.http), timeout=20) as opened:
        opened.sendall(b"GET /v2 HTTP/1.1\r\nhost:")
        assert opened.recv(1) == b""
