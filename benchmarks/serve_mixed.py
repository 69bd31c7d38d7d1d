"""Mixed load on `deploy serve`: good requests of every kind, bad ones among them, and reloads."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from serve_load import grpc_caller, http_caller, http_request, is_right, samples
from serve_peers import Peer

_RELOAD_S = 20.0
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
    workers += [lambda s=s: _bad(server, good, tally, stop, s) for s in range(2)]  # type: ignore[misc]
    workers.append(lambda: _reload(server, tally, stop))
    threads = [threading.Thread(target=work) for work in workers]
    for thread in threads:
        thread.start()
    memory = []
    until = time.monotonic() + minutes * 60
    while time.monotonic() < until:
        time.sleep(min(_SAMPLE_S, max(0.0, until - time.monotonic())))
        memory.append(_memory(server))
    stop.set()
    for thread in threads:
        thread.join()
    print(f"{minutes:g} minutes:", ", ".join(f"{n} {k}" for k, n in sorted(tally.counts.items())))
    third = max(1, len(memory) // 3)
    first, last = np.mean(memory[third : 2 * third] or memory), np.mean(memory[-third:])
    print(
        f"memory: {memory[0]:.0f} MB at first, {first:.0f} MB in the second third, {last:.0f} MB "
        f"in the last, at most {max(memory):.0f} MB"
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


def _bad(server: Peer, good: bytes, tally: Tally, stop: threading.Event, seed: int) -> None:
    """Truncated, garbled and oversized requests, each on a connection of its own."""
    rng = random.Random(seed)
    assert server.http
    assert server.grpc
    while not stop.is_set():
        kind = rng.choice(["cut", "garbled", "headers", "noise", "grpc noise", "shape", "name"])
        data = good
        if kind == "cut":
            data = good[: rng.randrange(len(good))]
        elif kind == "garbled":
            at = rng.randrange(400)
            data = good[:at] + rng.randbytes(8) + good[at + 8 :]
        elif kind == "headers":
            data = good.replace(b"host: x", b"host: " + b"y" * rng.choice([1 << 14, 1 << 20]), 1)
        elif kind.endswith("noise"):
            data = rng.randbytes(rng.randrange(1, 5000))
        elif kind == "shape":
            data = good.replace(b'"shape": [1,', b'"shape": [7,', 1)
        elif kind == "name":
            data = good.replace(b'"name": "', b'"name": "x', 1)
        port = server.grpc if kind == "grpc noise" else server.http
        _send(port, data)
        tally.add(f"bad: {kind}")


def _send(port: int, data: bytes) -> None:
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
    ):
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
