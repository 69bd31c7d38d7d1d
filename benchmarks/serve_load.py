"""One side of `serve.py`: callers in a closed loop, each checking every answer.

    python benchmarks/serve_load.py http|grpc PORT MODEL SAMPLES.npz SECONDS CONNECTIONS
    python benchmarks/serve_load.py bare BUNDLE SAMPLES.npz SECONDS

SAMPLES.npz: `input:NAME` with one row and `output:NAME` with what the engine gives for it. Prints
one JSON object. The client does as little as it can, over HTTP and over gRPC alike, a plain socket
and a message made once, since it runs on the same cores as the server: its own share is in the
result.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_JSON = re.compile(rb"\r\ninference-header-content-length: (\d+)", re.IGNORECASE)
# a peer may compute in bfloat16 what the engine computes in float32
_CLOSE_DB = 20.0

Arrays = dict[str, np.ndarray]


def samples(path: Path) -> tuple[Arrays, Arrays]:
    """Inputs and outputs by name."""
    with np.load(path) as file:
        sides = [
            {key.partition(":")[2]: file[key] for key in file if key.startswith(side)}
            for side in ("input:", "output:")
        ]
    return sides[0], sides[1]


def is_right(raw: bytes, wanted: np.ndarray) -> bool:
    """Whether the first output is the engine's, but for its rounding."""
    if raw == wanted.data.cast("B"):
        return True
    if len(raw) != wanted.nbytes:
        return False
    off = np.frombuffer(raw, wanted.dtype).astype(float) - wanted.ravel()
    return bool((off**2).sum() <= (wanted.astype(float) ** 2).sum() / 10 ** (_CLOSE_DB / 10))


def http_request(model: str, inputs: Arrays, outputs: Arrays) -> bytes:
    """A whole request with binary tensors, and only the first output asked for."""
    rows = [
        {
            "name": name,
            "datatype": "FP32",
            "shape": list(x.shape),
            "parameters": {"binary_data_size": x.nbytes},
        }
        for name, x in inputs.items()
    ]
    wanted = [{"name": next(iter(outputs)), "parameters": {"binary_data": True}}]
    text = json.dumps({"inputs": rows, "outputs": wanted}).encode()
    body = text + b"".join(x.tobytes() for x in inputs.values())
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-"
        f"stream\r\ninference-header-content-length: {len(text)}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def http_caller(port: int, request: bytes) -> Callable[[], bytes]:
    """A call that sends the request and returns the bytes of the output."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call() -> bytes:
        connection.sendall(request)
        got = connection.recv(1 << 16)
        while b"\r\n\r\n" not in got:
            got += connection.recv(1 << 16)
        head, _, body = got.partition(b"\r\n\r\n")
        length, text = _LENGTH.search(head), _JSON.search(head)
        assert length, head
        assert text, got[:500]
        while len(body) < int(length.group(1)):
            body += connection.recv(1 << 16)
        return body[int(text.group(1)) :]

    return call


def infer_message(model: str, inputs: Arrays, outputs: Arrays) -> bytes:
    """A ModelInferRequest with raw tensors, and only the first output asked for."""
    from deploy.serving.grpc_messages import message

    request = message("ModelInferRequest")(model_name=model)
    for name, x in inputs.items():
        request.inputs.add(name=name, datatype="FP32", shape=x.shape)
        request.raw_input_contents.append(x.tobytes())
    request.outputs.add(name=next(iter(outputs)))
    raw: bytes = request.SerializeToString()
    return raw


def grpc_caller(port: int, model: str, inputs: Arrays, outputs: Arrays) -> Callable[[], bytes]:
    """The same over a connection of its own, from bytes to bytes."""
    from serve_http2 import Http2Caller

    from deploy.serving.grpc_messages import SERVICE, message

    raw = infer_message(model, inputs, outputs)
    infer = Http2Caller(port, f"/{SERVICE}/ModelInfer", raw)
    response = message("ModelInferResponse")

    def call() -> bytes:
        found: bytes = response.FromString(infer()).raw_output_contents[0]
        return found

    return call


def bare_caller(bundle: Path, inputs: Arrays, outputs: Arrays) -> Callable[[], bytes]:
    """The bundle's engine itself, as parity and bench run it."""
    from deploy.backends import ov
    from deploy.target import EngineSettings

    settings = json.loads((bundle / "engine" / "settings.json").read_text())
    engine = ov.load(bundle / "engine", EngineSettings(**settings["engine"]), settings["precision"])
    name = next(iter(outputs))
    return lambda: engine.run(inputs)[name].tobytes()


def closed_loop(
    begin: Callable[[], Callable[[], bytes]], wanted: np.ndarray, seconds: float, callers: int
) -> dict[str, Any]:
    """Requests per second of so many callers, and how many answers were wrong."""
    counts, wrong = [0] * callers, [0] * callers
    took: list[float] = []
    calls = [begin() for _ in range(callers)]
    for call in calls:
        call()
    started = time.perf_counter()

    def work(index: int) -> None:
        call = calls[index]
        while (now := time.perf_counter()) < started + seconds:
            wrong[index] += not is_right(call(), wanted)
            counts[index] += 1
            took.append(time.perf_counter() - now)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(callers)]
    cpu_s = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu_s = time.process_time() - cpu_s
    rate = sum(counts) / (time.perf_counter() - started)
    p50, p99 = np.percentile(took, [50, 99]) * 1000
    return {
        "rate": rate,
        "wrong": sum(wrong),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "cpu_ms_per_request": cpu_s / sum(counts) * 1000,
    }


def main() -> None:
    way, *rest = sys.argv[1:]
    if way == "bare":
        inputs, outputs = samples(Path(rest[1]))
        begin = lambda: bare_caller(Path(rest[0]), inputs, outputs)  # noqa: E731
        seconds, callers = float(rest[2]), 1
    else:
        port, model = int(rest[0]), rest[1]
        inputs, outputs = samples(Path(rest[2]))
        seconds, callers = float(rest[3]), int(rest[4])
        request = http_request(model, inputs, outputs)
        begin = (
            (lambda: http_caller(port, request))
            if way == "http"
            else (lambda: grpc_caller(port, model, inputs, outputs))
        )
    wanted = next(iter(outputs.values()))
    print(json.dumps(closed_loop(begin, wanted, seconds, callers)))


if __name__ == "__main__":
    main()
