"""V2 over HTTP: every wrong request is told its code and its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from asked import ask, infer, infer_json, tensor_row
from serving_bundles import scaled, scaled_truth

from deploy.serving.background import serving
from deploy.serving.options import Options

X = np.array([[1.5, -2, 3], [0, 0.25, 9]], np.float32)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    bundle = scaled(tmp_path_factory.mktemp("http") / "b")
    options = Options(bundle, http_port=0, grpc_port=None, max_request_bytes=1 << 16, linger_s=0)
    with serving(options) as made:
        yield made


ROW = tensor_row("x", X)
BINARY = {"name": "x", "datatype": "FP32", "shape": [2, 3]}
REFUSED: dict[str, tuple[Any, bytes, int, str]] = {
    "no JSON": (b"{", b"", 400, "the body is no JSON"),
    "empty": (b"", b"", 400, "the body is no JSON"),
    "not an object": ([1], b"", 400, "no JSON object"),
    "too deep": (b"[" * 30000, b"", 400, "nested too deeply"),
    "NaN": (b'{"inputs": [NaN]}', b"", 400, "NaN is not JSON"),
    "no inputs": ({}, b"", 400, "inputs is missing"),
    "input is no object": ({"inputs": [3]}, b"", 400, "no JSON object"),
    "missing input": ({"inputs": []}, b"", 400, "input 'x' is missing: FP32 [any, 3]"),
    "twice": ({"inputs": [ROW, ROW]}, b"", 400, "given 2 times"),
    "wrong name": ({"inputs": [{**ROW, "name": "X"}]}, b"", 400, "no input 'X'; the model has: x"),
    "close name": ({"inputs": [{**ROW, "name": "xx"}]}, b"", 400, "did you mean 'x'"),
    "name is no string": ({"inputs": [{**ROW, "name": [1]}]}, b"", 400, "no input '[1]'"),
    "wrong type": (
        *({"inputs": [{**ROW, "datatype": "FP64"}]}, b"", 400),
        "datatype 'FP64'; the engine takes FP32",
    ),
    "strings": ({"inputs": [{**ROW, "datatype": "BYTES"}]}, b"", 400, "it has no strings"),
    "unknown type": ({"inputs": [{**ROW, "datatype": "FP31"}]}, b"", 400, "no type of V2"),
    "type is no string": ({"inputs": [{**ROW, "datatype": {}}]}, b"", 400, "no type of V2"),
    "wrong shape": (
        *({"inputs": [{**ROW, "shape": [2, 4]}]}, b"", 400),
        "shape [2, 4]; the engine takes [any, 3]",
    ),
    "wrong rank": ({"inputs": [{**ROW, "shape": [6]}]}, b"", 400, "shape [6]"),
    "no shape": ({"inputs": [{**ROW, "shape": None}]}, b"", 400, "no list of whole numbers"),
    "float shape": ({"inputs": [{**ROW, "shape": [2.0, 3]}]}, b"", 400, "no list of whole"),
    "negative": ({"inputs": [{**ROW, "shape": [-2, 3]}]}, b"", 400, "shape [-2, 3]"),
    "no rows": ({"inputs": [{**ROW, "shape": [0, 3], "data": []}]}, b"", 400, "shape [0, 3]"),
    "absurd": ({"inputs": [{**ROW, "shape": [2**62, 3]}]}, b"", 413, "at most 65536 are taken"),
    "too few": ({"inputs": [{**ROW, "data": [1.0]}]}, b"", 400, "the shape says 2x3 = 6 numbers"),
    "uneven": ({"inputs": [{**ROW, "data": [[1, 2], [3]]}]}, b"", 400, "nested unevenly"),
    "text": ({"inputs": [{**ROW, "data": ["a"] * 6}]}, b"", 400, "data holds str"),
    "no data": ({"inputs": [BINARY]}, b"", 400, "data is no list"),
    "too much": ({"inputs": [{**ROW, "data": [1e39] * 6}]}, b"", 400, "1e+39, too much for FP32"),
    "null": ({"inputs": [{**ROW, "data": [None] * 6}]}, b"", 400, "data holds NoneType"),
    "huge": ({"inputs": [{**ROW, "data": [10**400] * 6}]}, b"", 400, "more than FP32 numbers"),
    "parameters": ({"inputs": [ROW], "parameters": 3}, b"", 400, "parameters is no JSON object"),
    "sequence": (
        *({"inputs": [ROW], "parameters": {"sequence_id": 4}}, b"", 400),
        "'sequence_id' isn't served: it keeps no state",
    ),
    "shared memory": (
        *({"inputs": [{**BINARY, "parameters": {"shared_memory_region": "r"}}]}, b"", 400),
        "it has no shared memory",
    ),
    "classes": (
        *({"inputs": [ROW], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},),
        *(b"", 400, "it ranks no classes"),
    ),
    "wrong output": (
        *({"inputs": [ROW], "outputs": [{"name": "z"}]}, b"", 400),
        "no output 'z'; the model has: y",
    ),
    "output twice": (
        *({"inputs": [ROW], "outputs": [{"name": "y"}, {"name": "y"}]}, b"", 400),
        "asked for twice",
    ),
    "id": ({"inputs": [ROW], "id": 7}, b"", 400, "id: not a string"),
    "timeout": (
        *({"inputs": [ROW], "parameters": {"timeout": -1}}, b"", 400),
        "give whole microseconds",
    ),
    "cut short": (
        *({"inputs": [{**BINARY, "parameters": {"binary_data_size": 24}}]}, bytes(20), 400),
        "only 20 bytes are left; the body is cut short",
    ),
    "too long": (
        *({"inputs": [{**BINARY, "parameters": {"binary_data_size": 24}}]}, bytes(28), 400),
        "4 bytes behind the last tensor",
    ),
    "wrong size": (
        *({"inputs": [{**BINARY, "parameters": {"binary_data_size": 20}}]}, bytes(20), 400),
        "20 bytes of data, FP32 [2, 3] has 24",
    ),
    "size is no number": (
        *({"inputs": [{**BINARY, "parameters": {"binary_data_size": "24"}}]}, bytes(24), 400),
        "give the number of bytes",
    ),
    "both": (
        *({"inputs": [{**ROW, "parameters": {"binary_data_size": 24}}]}, bytes(24), 400),
        "give one of them",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_request_is_told_why(running: Any, case: str) -> None:
    document, raw, status, reason = REFUSED[case]
    answer = infer(running, document, raw)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert reason in answer.error
    # and the server is none the worse for it
    np.testing.assert_array_equal(infer_json(running, X).tensor(), scaled_truth(X))


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"inference-header-content-length": "x"}, 400, "give the number of bytes of JSON"),
        ({"inference-header-content-length": "-1"}, 400, "give the number of bytes of JSON"),
        ({"inference-header-content-length": "99999"}, 400, "but the body has only"),
        ({"content-encoding": "gzip"}, 415, "send the body as it is"),
    ],
)
def test_wrong_headers(running: Any, headers: dict[str, str], status: int, reason: str) -> None:
    answer = infer(running, {"inputs": [ROW]}, headers=headers)
    assert answer.status == status
    assert reason in answer.error


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nothing", 404, "Not Found"),
        ("GET", "/v2/models/tiny/infer", 405, "Method Not Allowed"),
        ("GET", "/v2/models/other", 404, "no model 'other'; this server has 'tiny'"),
        ("GET", "/v2/models/tiny/versions/9", 404, "no version '9' of 'tiny'; 1 is served"),
        ("POST", "/v2/models/other/infer", 404, "no model 'other'"),
        ("POST", "/v2/models/..%2f..%2fetc/infer", 404, "Not Found"),
        ("POST", "/v2/repository/models/tiny/unload", 400, "isn't unloaded"),
        ("POST", "/v2/repository/models/other/load", 404, "no model 'other'"),
    ],
)
def test_wrong_paths(running: Any, method: str, path: str, status: int, reason: str) -> None:
    answer = ask(running, method, path)
    assert answer.status == status
    assert reason in answer.error


def test_a_load_with_parameters_is_refused(running: Any) -> None:
    body = json.dumps({"parameters": {"config": "{}"}}).encode()
    answer = ask(running, "POST", "/v2/repository/models/tiny/load", body)
    assert answer.status == 400
    assert "parameters of a load aren't served" in answer.error
