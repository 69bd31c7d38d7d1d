"""Start and stop: nothing that was asked is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked import (
    ask,
    grpc_request,
    infer_json,
    over_grpc,
    tensor_row,
)
from gate import until
from http2_peer import HELLO, Frame, data, headers, whole_frames
from own_process import Logged, process
from serving_bundles import scaled, scaled_truth

from deploy.errors import BundleError, RecipeError
from deploy.serving import http2_frames as h2
from deploy.serving.grpc_messages import message as message_class

pytestmark = pytest.mark.slow

X = np.array([[1.5, -2, 3], [0, 0.25, 9]], np.float32)


def test_a_stop_finishes_what_is_under_way(
    busy: Callable[..., Any], pool: ThreadPoolExecutor
) -> None:
    running, gate, first = busy(linger_s=0.05)
    asked = [pool.submit(infer_json, running, X) for _ in range(6)]
    asked_grpc = [pool.submit(over_grpc, running, X) for _ in range(6)]
    until(running, 12)
    held = socket.create_connection(("127.0.0.1", running.ports.http), timeout=20)
    with held:
        running.stop()
        running.stop()
        # refused at once, as the listening socket is gone
        with pytest.raises(OSError):
            while True:
                socket.create_connection(("127.0.0.1", running.ports.http), timeout=20).close()
        gate.open()
        for one in [first, *asked]:
            answer = one.result()
            np.testing.assert_array_equal(answer.tensor(), scaled_truth(X))
            assert answer.headers["connection"] == "close"
        for one in asked_grpc:
            np.testing.assert_array_equal(one.result(), scaled_truth(X))


def test_an_open_connection_is_answered_once_more(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    running = start(scaled(tmp_path / "b"), linger_s=60.0)
    connection = http.client.HTTPConnection("127.0.0.1", running.ports.http, timeout=20)
    connection.request("GET", "/v2/health/ready")
    assert connection.getresponse().read() == b'{"ready":true}'
    running.stop()
    with pytest.raises(OSError):
        while True:
            socket.create_connection(("127.0.0.1", running.ports.http), timeout=20).close()
    connection.request("GET", "/v2/health/ready")
    response = connection.getresponse()
    assert (response.status, response.getheader("connection")) == (503, "close")
    # and with its last connection the server is gone, long before the minute
    connection.close()


def test_a_given_name(start: Callable[..., Any], tmp_path: Path) -> None:
    running = start(scaled(tmp_path / "b"), name="other")
    assert infer_json(running, X).json["model_name"] == "other"
    assert ask(running, "GET", "/v2/models/tiny").status == 404


def test_a_taken_port(start: Callable[..., Any], tmp_path: Path) -> None:
    bundle = scaled(tmp_path / "b")
    ports = start(bundle).ports
    with pytest.raises(RecipeError, match=rf"127\.0\.0\.1:{ports.http}: .*in use.*--http-port"):
        start(bundle, http_port=ports.http)
    with pytest.raises(RecipeError, match=rf":{ports.grpc}: .*in use.*--grpc-port"):
        start(bundle, grpc_port=ports.grpc)


def test_a_bundle_that_isnt_one(start: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        start(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_under_way_and_exits_well(
    number: signal.Signals, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    bundle = scaled(tmp_path / "b")
    with process(bundle, "--http-port", 0, "--grpc-port", 0, "--streams", 1) as server:
        logged = Logged(server)
        assert server.stdout
        assert server.stdin
        first = pool.submit(infer_json, logged, X)
        assert server.stdout.readline() == "running\n"
        server.send_signal(number)
        logged.until("stopping")
        server.stdin.write("go\n")
        server.stdin.flush()
        np.testing.assert_array_equal(first.result().tensor(), scaled_truth(X))
        logged.until("stopped")
        assert server.wait(30) == 0


def test_a_signal_under_load_loses_nothing(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Every caller on an open connection is answered until it is told that this was the last."""
    bundle = scaled(tmp_path / "b")
    with process(bundle, "--http-port", 0, "--no-grpc", "--max-batch", 8, gated=False) as server:
        logged = Logged(server)
        begun = threading.Barrier(9)

        def work(seed: int) -> int:
            x = np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)
            body = json.dumps({"inputs": [tensor_row("x", x)]}).encode()
            connection = http.client.HTTPConnection("127.0.0.1", logged.http, timeout=30)
            count = 0
            while True:
                connection.request("POST", "/v2/models/tiny/infer", body)
                response = connection.getresponse()
                row = json.loads(response.read())["outputs"][0]
                np.testing.assert_array_equal(np.float32(row["data"]), scaled_truth(x).ravel())
                count += 1
                if count == 5:
                    begun.wait(30)
                if response.getheader("connection") == "close":
                    connection.close()
                    return count

        workers = [pool.submit(work, seed) for seed in range(8)]
        begun.wait(30)
        server.send_signal(signal.SIGTERM)
        assert all(worker.result() > 5 for worker in workers)
        assert server.wait(30) == 0


def test_a_signal_under_load_loses_no_call(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Every call that the server's last GOAWAY says was begun is answered, and rightly."""
    bundle = scaled(tmp_path / "b")
    with process(bundle, "--http-port", 0, "--grpc-port", 0, gated=False) as server:
        logged = Logged(server)
        begun = threading.Barrier(9)

        def work(seed: int) -> int:
            x = np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)
            raw = grpc_request(logged, x).SerializeToString()
            message = b"\0" + len(raw).to_bytes(4) + raw
            count, got = 0, b""
            with socket.create_connection(("127.0.0.1", logged.grpc), timeout=30) as opened:
                opened.sendall(HELLO)
                while True:
                    stream = 2 * count + 1
                    try:
                        opened.sendall(headers(stream) + data(stream, message))
                    except OSError:
                        # it hung up, so this call was never begun
                        opened.settimeout(0)
                    while not _is_answered(got, stream):
                        piece = b""
                        with contextlib.suppress(OSError):
                            piece = opened.recv(1 << 16)
                        if not piece:
                            last = [f for f in whole_frames(got) if f.kind == h2.GOAWAY][-1]
                            assert int.from_bytes(last.payload[:4]) < stream
                            return count
                        got += piece
                    answer = b"".join(f.payload for f in _of(got, stream) if f.kind == h2.DATA)
                    reply = message_class("ModelInferResponse").FromString(answer[5:])
                    found = np.frombuffer(reply.raw_output_contents[0], "<f4")
                    np.testing.assert_array_equal(found, scaled_truth(x).ravel())
                    got = b"".join(_bytes(f) for f in whole_frames(got) if f.kind == h2.GOAWAY)
                    count += 1
                    if count == 5:
                        begun.wait(30)

        workers = [pool.submit(work, seed) for seed in range(8)]
        begun.wait(30)
        server.send_signal(signal.SIGTERM)
        assert all(worker.result() >= 5 for worker in workers)
        assert server.wait(30) == 0


def _of(got: bytes, stream: int) -> list[Frame]:
    return [f for f in whole_frames(got) if f.stream == stream]


def _is_answered(got: bytes, stream: int) -> bool:
    return any(f.kind == h2.HEADERS and f.flags & h2.END_STREAM for f in _of(got, stream))


def _bytes(frame: Frame) -> bytes:
    return h2.frame(frame.kind, frame.flags, frame.stream, frame.payload)


def test_sighup_reloads(tmp_path: Path) -> None:
    bundle = scaled(tmp_path / "b")
    with process(bundle, "--http-port", 0, "--no-grpc", "--max-batch", 1) as server:
        logged = Logged(server)
        os.kill(server.pid, signal.SIGHUP)
        assert logged.until("version 2 of tiny")["level"] == "info"
        (bundle / "manifest.json").write_text("{")
        os.kill(server.pid, signal.SIGHUP)
        failed = logged.until("not reloaded")
        assert failed["level"] == "error"
        assert ask(logged, "GET", "/v2/models/tiny/versions/2").status == 200


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.serving", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'none'}: no manifest.json")
    assert done.stderr.count("\n") == 1
