"""Asking a V2 server: the numbers come back, and everything else is said."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest
from ladder_faults import digits, shipped

from deploy.errors import BuildError
from deploy.ladder.climb import Way, ladder
from deploy.ladder.served import Server


@contextmanager
def serving(answer: Any, status: int = 200) -> Iterator[str]:
    """A server whose answer is what a function makes of the request, or always the same bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made = answer(body, self.path) if callable(answer) else answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(made if isinstance(made, bytes) else json.dumps(made).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def output(name: str, x: np.ndarray) -> dict[str, Any]:
    return {"name": name, "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}


def fed(body: dict[str, Any]) -> np.ndarray:
    row = body["inputs"][0]
    return np.asarray(row["data"], np.float32).reshape(row["shape"])


def test_numbers_come_back_to_the_last_bit() -> None:
    x = np.random.default_rng(1).standard_normal((1, 3, 2)).astype(np.float32)
    paths = []

    def answer(body: dict[str, Any], path: str) -> Any:
        paths.append(path)
        assert body["inputs"][0]["datatype"] == "FP32"
        return {"outputs": [output("y", fed(body) * 2)]}

    with serving(answer) as url:
        got = Server(url, "my model").infer({"x": x}, ["y"])
    np.testing.assert_array_equal(got["y"], x * 2)
    assert paths == ["/v2/models/my%20model/infer"]


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ({"error": "no such model"}, 404, "HTTP 404"),
        (b"<html>", 200, "not JSON"),
        ([], 200, "no JSON object"),
        ({"outputs": [{"name": "y"}]}, 200, "not an answer of the Open Inference Protocol"),
        ({"outputs": []}, 200, "the answer lacks y"),
    ],
)
def test_another_answer_is_said(answer: Any, status: int, said: str) -> None:
    with serving(answer, status) as url, pytest.raises(BuildError, match=said):
        Server(url, "m").infer({"x": np.zeros((1, 2), np.float32)}, ["y"])


def test_no_server_is_said() -> None:
    with serving({}) as url:
        pass
    with pytest.raises(BuildError, match=r"no answer.*is the server up"):
        Server(url, "m").infer({"x": np.zeros((1, 2), np.float32)}, ["y"])
    with pytest.raises(BuildError, match="not an address"):
        Server("127.0.0.1:8000", "m")


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_the_last_rung_is_the_server(tmp_path: Any, factor: float) -> None:
    pytest.importorskip("openvino")
    sound = digits()
    engine = shipped(sound.graphs["quantized"], tmp_path / "engine")
    graphs = {k: v for k, v in sound.graphs.items() if k in ("source", "quantized", "equalized")}

    def answer(body: dict[str, Any], path: str) -> Any:
        out = engine.engine.run({"image": fed(body)})
        return {"outputs": [output(n, x * np.float32(factor)) for n, x in out.items()]}

    with engine.engine, serving(answer) as url:
        server = Server(url, "digits")
        way = Way(
            graphs,
            sound.ranges,
            engine,
            served=lambda feeds: server.infer(feeds, ["logits"]),
            served_inputs=engine.engine.inputs,
        )
        found = ladder(way, sound.samples)
    assert found.rungs[-1].name == "served"
    assert [rung.stage for rung in found.broken] == ([] if factor == 1 else ["serve"])
