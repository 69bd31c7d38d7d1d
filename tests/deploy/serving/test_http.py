"""V2 over HTTP: what is answered, and the limits."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked import ask, infer, infer_binary, infer_json, tensor_row
from serving_bundles import identity, scaled, scaled_truth, two_inputs

from deploy.serving.background import serving
from deploy.serving.datatypes import DATATYPES
from deploy.serving.options import Options

X = np.array([[1.5, -2, 3], [0, 0.25, 9]], np.float32)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    bundle = scaled(tmp_path_factory.mktemp("http") / "b")
    options = Options(bundle, http_port=0, grpc_port=None, max_request_bytes=1 << 16, linger_s=0)
    with serving(options) as made:
        yield made


def test_the_server_and_its_model_describe_themselves(running: Any) -> None:
    assert ask(running, "GET", "/v2").json["extensions"] == [
        "binary_tensor_data",
        "model_repository",
    ]
    assert ask(running, "GET", "/v2/health/live").json == {"live": True}
    assert ask(running, "GET", "/v2/health/ready").json == {"ready": True}
    assert ask(running, "GET", "/v2/models/tiny/ready").json == {"name": "tiny", "ready": True}
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/1"):
        assert ask(running, "GET", path).json == {
            "name": "tiny",
            "versions": ["1"],
            "platform": "openvino",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
        }
    assert ask(running, "POST", "/v2/repository/index").json[0]["state"] == "READY"


@pytest.mark.parametrize("send", [infer_json, infer_binary])
def test_it_computes_what_the_engine_computes(running: Any, send: Callable[..., Any]) -> None:
    answer = send(running, X)
    assert answer.status == 200
    np.testing.assert_array_equal(answer.tensor(), scaled_truth(X))
    assert answer.json["model_name"] == "tiny"
    assert answer.json["model_version"] == "1"


def test_nested_data_and_an_id_and_the_version_in_the_url(running: Any) -> None:
    row = {**tensor_row("x", X), "data": X.tolist()}
    path = "/v2/models/tiny/versions/1/infer"
    answer = infer(running, {"id": "a-7", "inputs": [row]}, path=path)
    assert answer.json["id"] == "a-7"
    np.testing.assert_array_equal(answer.tensor(), scaled_truth(X))


def test_a_chunked_body_is_taken(running: Any) -> None:
    text = json.dumps({"inputs": [tensor_row("x", X)]}).encode()
    pieces: Any = iter([text[:10], text[10:]])
    headers = {"transfer-encoding": "chunked"}
    answer = ask(running, "POST", "/v2/models/tiny/infer", pieces, headers)
    np.testing.assert_array_equal(answer.tensor(), scaled_truth(X))


def test_inputs_as_json_and_as_bytes_in_one_request(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    running = start(two_inputs(tmp_path / "b"))
    a = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    b = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    binary = {
        "name": "b",
        "datatype": "FP32",
        "shape": [3, 2, 2],
        "parameters": {"binary_data_size": b.nbytes},
    }
    outputs = [{"name": "rank"}, {"name": "total", "parameters": {"binary_data": True}}]
    document = {"inputs": [binary, tensor_row("a", a)], "outputs": outputs}
    answer = infer(running, document, b.tobytes())
    assert [row["name"] for row in answer.json["outputs"]] == ["rank", "total"]
    assert answer.json["outputs"][0]["datatype"] == "INT64"
    np.testing.assert_array_equal(answer.tensor(0), [3, 7, 11])
    np.testing.assert_array_equal(answer.tensor(1), b + a[:, :, None])


@pytest.mark.parametrize("kind", sorted(DATATYPES))
def test_every_type_goes_both_ways(kind: str, start: Callable[..., Any], tmp_path: Path) -> None:
    datatype = DATATYPES[kind]
    running = start(identity(tmp_path / "b", datatype.engine), grpc_port=None)
    values: list[Any] = [1, 0, 1, 1]
    if kind not in ("BOOL", "BF16"):
        values = [3, 0, 100, 7] if datatype.dtype.kind == "u" else [-3, 0, 100, 7]
    if datatype.dtype.kind == "f":
        values = [-1.5, 0.25, 1024.0, 3.0]
    document: Any = {"inputs": [{"name": "x", "datatype": kind, "shape": [1, 4], "data": values}]}
    answer = infer(running, document)
    assert answer.status == 200, answer.body
    wanted = [bool(v) for v in values] if kind == "BOOL" else values
    assert answer.json["outputs"][0]["data"] == wanted * 2
    raw = (
        np.array(values, np.float32).view(np.uint32).astype(np.uint32) >> 16
        if kind == "BF16"
        else np.array(values)
    )
    binary = raw.astype(datatype.dtype).tobytes()
    del document["inputs"][0]["data"]
    document["inputs"][0]["parameters"] = {"binary_data_size": len(binary)}
    document["outputs"] = [{"name": "y", "parameters": {"binary_data": True}}]
    answer = infer(running, document, binary)
    assert answer.body[int(answer.headers["inference-header-content-length"]) :] == binary * 2


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_a_body_is_refused(running: Any, chunked: bool) -> None:
    body: Any = bytes(1 << 20)
    headers = {}
    if chunked:
        # without an announced length it is counted as it comes
        body, headers = iter([bytes(1 << 14)] * 64), {"transfer-encoding": "chunked"}
    answer = ask(running, "POST", "/v2/models/tiny/infer", body, headers)
    assert answer.status == 413
    assert "at most 65536 are taken" in answer.error
    assert infer_json(running, X).status == 200


def test_too_much_json_is_refused_and_the_way_out_named(
    start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.serving.options.MOST_JSON_BYTES", 50)
    running = start(scaled(tmp_path / "b"))
    answer = infer_json(running, X)
    assert answer.status == 413
    assert "send the tensors as binary data" in answer.error


def test_all_requests_together_hold_a_bounded_number_of_bytes(
    start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.serving.options.Options.held_bytes", property(lambda self: 100))
    running = start(scaled(tmp_path / "b"))
    x = np.ones((9, 3), np.float32)
    answer = infer_binary(running, x)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "bytes already" in answer.error
    # what was refused is given back
    assert "deploy_held_bytes 0.0" in ask(running, "GET", "/metrics").body.decode()


def test_numbers_that_json_has_not_are_refused_and_bytes_carry_them(running: Any) -> None:
    x = np.array([[np.nan, np.inf, 1]], np.float32)
    row = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
    document = {"inputs": [{**row, "parameters": {"binary_data_size": x.nbytes}}]}
    answer = infer(running, document, x.tobytes())
    assert answer.status == 400
    assert "for which JSON has no number; ask for binary data" in answer.error
    np.testing.assert_array_equal(infer_binary(running, x).tensor(), scaled_truth(x))


def test_figures_for_prometheus(start: Callable[..., Any], tmp_path: Path) -> None:
    running = start(scaled(tmp_path / "b"))
    for _ in range(3):
        infer_json(running, X)
    infer(running, {})
    text = ask(running, "GET", "/metrics").body.decode()
    assert 'deploy_requests_total{code="ok",protocol="http"} 3.0' in text
    assert 'deploy_requests_total{code="invalid",protocol="http"} 1.0' in text
    assert 'deploy_request_seconds_count{protocol="http"} 4.0' in text
    assert "deploy_run_rows_sum 6.0" in text
    assert 'deploy_model_version{model="tiny"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_the_document_describes_every_route(start: Callable[..., Any], tmp_path: Path) -> None:
    running = start(scaled(tmp_path / "b"), grpc_port=None)
    document = ask(running, "GET", "/openapi.json").json
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            filled = path.replace("{name}", "tiny").replace("{version}", "1")
            answer = ask(running, method.upper(), filled, b"{}" if method == "post" else None)
            assert str(answer.status) in operation["responses"], (path, answer.status)


def test_many_at_once_and_none_gets_another_ones_answer(running: Any) -> None:
    wrong = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            x = rng.normal(size=(int(rng.integers(1, 6)), 3)).astype(np.float32)
            answer = (infer_json if seed % 2 else infer_binary)(running, x)
            if answer.status != 200 or not np.array_equal(answer.tensor(), scaled_truth(x)):
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
