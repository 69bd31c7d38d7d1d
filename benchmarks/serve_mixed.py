"""Mixed load on `deploy serve`: good requests of every kind, bad ones among them, and reloads."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from serve_http2 import Http2Caller
from serve_load import (
    grpc_caller,
    http_caller,
    http_request,
    infer_message,
    is_right,
    samples,
)
from serve_peers import Peer

from deploy.serving.grpc_messages import SERVICE

_RELOAD_S = 20.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SAMPLE_S = 10.0


class Tally:
    """What came back, by kind; shared by all threads."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1


def mixed(server: Peer, bundle: Path, path: Path, minutes: float) -> None:
    """Run for so long; prints counts, wrong answers and the memory over time."""
    tally = Tally()
    stop = threading.Event()
    one_row, one_output = samples(path)
    workers: list[Callable[[], None]] = []
    for rows in (1, 2, 3, 4):
        inputs = {name: np.repeat(x, rows, 0) for name, x in one_row.items()}
        outputs = {name: np.tile(x.ravel(), rows) for name, x in one_output.items()}
        workers += [
            lambda i=inputs, o=outputs: _good_http(server, i, o, tally, stop),  # type: ignore[misc]
            lambda i=inputs, o=outputs: _good_grpc(server, i, o, tally, stop),  # type: ignore[misc]
        ]
    good = http_request(server.model, one_row, one_output)
    message = infer_message(server.model, one_row, one_output)
    bad = Bad(server, good, message)
    workers += [lambda s=s: bad.send(tally, stop, s) for s in range(2)]  # type: ignore[misc]
    workers.append(lambda: _reload(server, tally, stop))
    threads = [threading.Thread(target=work) for work in workers]
    for thread in threads:
        thread.start()
    memory: list[list[float]] = []
    until = time.monotonic() + minutes * 60
    begun = time.monotonic()
    while time.monotonic() < until:
        time.sleep(min(_SAMPLE_S, max(0.0, until - time.monotonic())))
        # the sample belongs to the time that led to it
        minute = int((time.monotonic() - begun - _SAMPLE_S / 2) / 60)
        if minute >= len(memory):
            _print_minute(memory, tally)
            memory.append([])
        memory[-1].append(_memory(server))
    _print_minute(memory, tally)
    stop.set()
    for thread in threads:
        thread.join()
    print(f"{minutes:g} minutes:", ", ".join(f"{n} {k}" for k, n in sorted(tally.counts.items())))
    if any(word in kind for kind in tally.counts for word in ("WRONG", "FAILED")):
        sys.exit("answers were wrong or missing")


def _print_minute(memory: list[list[float]], tally: Tally) -> None:
    if not memory:
        return
    taken = memory[-1]
    print(
        f"minute {len(memory):2d}: {min(taken):.0f} to {max(taken):.0f} MB, "
        f"{sum(tally.counts.values())} requests so far",
        flush=True,
    )


def _good_http(
    server: Peer,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, np.ndarray],
    tally: Tally,
    stop: threading.Event,
) -> None:
    assert server.http
    call = http_caller(server.http, http_request(server.model, inputs, outputs))
    _repeat(call, next(iter(outputs.values())), "http", tally, stop)


def _good_grpc(
    server: Peer,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, np.ndarray],
    tally: Tally,
    stop: threading.Event,
) -> None:
    assert server.grpc
    call = grpc_caller(server.grpc, server.model, inputs, outputs)
    _repeat(call, next(iter(outputs.values())), "grpc", tally, stop)


def _repeat(
    call: Callable[[], bytes], wanted: np.ndarray, way: str, tally: Tally, stop: threading.Event
) -> None:
    while not stop.is_set():
        try:
            tally.add(f"{way} right" if is_right(call(), wanted) else f"{way} WRONG")
        # whatever it is, it is one more request that failed
        except Exception as error:
            tally.add(f"{way} FAILED ({type(error).__name__})")
            return


class Bad:
    """Requests that nobody sends on purpose, each on a connection of its own.

    good: a whole HTTP request; message: of a gRPC call.
    """

    def __init__(self, server: Peer, good: bytes, message: bytes) -> None:
        self._server = server
        self._good = good
        self._message = message
        self._kinds: dict[str, Callable[[random.Random], None]] = {
            "cut": lambda rng: self._http(good[: rng.randrange(len(good))]),
            "garbled": lambda rng: self._http(_garbled(good, rng, 400)),
            "headers": lambda rng: self._http(
                good.replace(b"host: x", b"host: " + b"y" * rng.choice([1 << 14, 1 << 20]), 1)
            ),
            "noise": lambda rng: self._http(rng.randbytes(rng.randrange(1, 5000))),
            "shape": lambda rng: self._http(good.replace(b'"shape": [1,', b'"shape": [7,', 1)),
            "name": lambda rng: self._http(good.replace(b'"name": "', b'"name": "x', 1)),
            "type": lambda rng: self._http(good.replace(b"FP32", b"INT8", 1)),
            "grpc noise": lambda rng: self._grpc(rng.randbytes(rng.randrange(1, 5000))),
            "grpc frames": lambda rng: self._grpc(_PREFACE + _frames(rng)),
            "grpc cut": lambda rng: self._call(message, cut=rng.randrange(1, len(message))),
            "grpc garbled": lambda rng: self._call(_garbled(message, rng, 100)),
            "grpc headers": lambda rng: self._call(
                message, method="M" * rng.choice([100, 1 << 16])
            ),
        }

    def send(self, tally: Tally, stop: threading.Event, seed: int) -> None:
        """One after the other until told to stop."""
        rng = random.Random(seed)
        while not stop.is_set():
            kind = rng.choice(list(self._kinds))
            # the server may hang up, or answer without a message
            with suppress(OSError):
                self._kinds[kind](rng)
            tally.add(f"bad: {kind}")

    def _http(self, data: bytes) -> None:
        _send(self._server.http, data)

    def _grpc(self, data: bytes) -> None:
        _send(self._server.grpc, data)

    def _call(self, message: bytes, method: str = "ModelInfer", cut: int = 0) -> None:
        assert self._server.grpc
        caller = Http2Caller(self._server.grpc, f"/{SERVICE}/{method}", message)
        with contextlib.closing(caller):
            caller.send(cut) if cut else caller()


def _garbled(data: bytes, rng: random.Random, within: int) -> bytes:
    at = rng.randrange(within)
    return data[:at] + rng.randbytes(8) + data[at + 8 :]


def _frames(rng: random.Random) -> bytes:
    """Frames of any kind with anything in them."""
    frames = b""
    for _ in range(rng.randrange(1, 20)):
        payload = rng.randbytes(rng.choice([0, 4, 5, 8, 30, 1000]))
        head = len(payload).to_bytes(3, "big") + bytes([rng.randrange(11), rng.randrange(64)])
        frames += head + rng.choice([0, 1, 2, 3, 1 << 20]).to_bytes(4, "big") + payload
    return frames


def _send(port: int | None, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port or 0), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


def _reload(server: Peer, tally: Tally, stop: threading.Event) -> None:
    url = f"http://127.0.0.1:{server.http}/v2/repository/models/{server.model}/load"
    while not stop.wait(_RELOAD_S):
        try:
            with urllib.request.urlopen(url, b"", timeout=60) as reply:
                json.load(reply)
            tally.add("reloads")
        except (OSError, urllib.error.URLError, ValueError) as error:
            tally.add(f"reload FAILED ({error})")


def _memory(server: Peer) -> float:
    """Resident memory, MB."""
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4096 / 1e6
