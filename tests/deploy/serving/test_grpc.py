"""V2 over gRPC: the same answers and the same reasons, with gRPC's codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from asked import call, channel, grpc_request, infer_grpc
from serving_bundles import identity, scaled, scaled_truth

from deploy.serving.background import serving
from deploy.serving.datatypes import DATATYPES
from deploy.serving.grpc_messages import message
from deploy.serving.options import Options

X = np.array([[1.5, -2, 3], [0, 0.25, 9]], np.float32)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    bundle = scaled(tmp_path_factory.mktemp("grpc") / "b")
    options = Options(bundle, http_port=0, grpc_port=0, max_request_bytes=1 << 16, linger_s=0)
    with serving(options) as made:
        yield made


def ask(running: Any, method: str, **fields: Any) -> Any:
    with channel(running) as opened:
        raw = call(opened, method, message(f"{method}Request")(**fields).SerializeToString())
    return message(f"{method}Response").FromString(raw)


def refused(running: Any, request: Any, **options: Any) -> tuple[str, str]:
    """Code and reason of a refusal."""
    with pytest.raises(grpc.RpcError) as caught:
        infer_grpc(running, request, **options)
    error: Any = caught.value
    return error.code().name, error.details()


def test_the_server_and_its_model_describe_themselves(running: Any) -> None:
    assert ask(running, "ServerLive").live
    assert ask(running, "ServerReady").ready
    assert ask(running, "ModelReady", name="tiny").ready
    assert ask(running, "ServerMetadata").extensions[0] == "binary_tensor_data"
    found = ask(running, "ModelMetadata", name="tiny", version="1")
    assert (found.name, list(found.versions), found.platform) == ("tiny", ["1"], "openvino")
    assert [(p.name, p.datatype, list(p.shape)) for p in found.inputs] == [("x", "FP32", [-1, 3])]
    assert [(p.name, p.datatype, list(p.shape)) for p in found.outputs] == [("y", "FP32", [-1, 3])]
    assert ask(running, "RepositoryIndex").models[0].state == "READY"


def test_raw_tensors(running: Any) -> None:
    reply = infer_grpc(running, grpc_request(running, X, id="a-7"))
    assert (reply.model_name, reply.model_version, reply.id) == ("tiny", "1", "a-7")
    row = reply.outputs[0]
    assert (row.name, row.datatype, list(row.shape)) == ("y", "FP32", [2, 3])
    got = np.frombuffer(reply.raw_output_contents[0], "<f4").reshape(row.shape)
    np.testing.assert_array_equal(got, scaled_truth(X))


@pytest.mark.parametrize("kind", sorted(k for k, d in DATATYPES.items() if d.contents))
def test_typed_contents(kind: str, start: Callable[..., Any], tmp_path: Path) -> None:
    datatype = DATATYPES[kind]
    running = start(identity(tmp_path / "b", datatype.engine))
    values = [True, False, True, True] if kind == "BOOL" else [7, 0, 100, 3]
    request = message("ModelInferRequest")(model_name="tiny")
    row = request.inputs.add(name="x", datatype=kind, shape=[1, 4])
    getattr(row.contents, datatype.contents).extend(values)
    reply = infer_grpc(running, request)
    got = np.frombuffer(reply.raw_output_contents[0], datatype.dtype)
    np.testing.assert_array_equal(got, np.array(values * 2, datatype.dtype))


def _typed(running: Any, datatype: str, field: str, values: list[Any]) -> Any:
    request = message("ModelInferRequest")(model_name="tiny")
    row = request.inputs.add(name="x", datatype=datatype, shape=[2, 3])
    getattr(row.contents, field).extend(values)
    return request


def _changed(running: Any, **fields: Any) -> Any:
    request = grpc_request(running, X)
    for name, value in fields.items():
        if name == "shape":
            request.inputs[0].shape[:] = value
        elif name in ("name", "datatype"):
            setattr(request.inputs[0], name, value)
        elif name == "raw":
            request.raw_input_contents[:] = value
        else:
            setattr(request, name, value)
    return request


WRONG: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "model": (lambda r: _changed(r, model_name="m"), "NOT_FOUND", "no model 'm'"),
    "version": (lambda r: _changed(r, model_version="3"), "NOT_FOUND", "no version '3'"),
    "name": (lambda r: _changed(r, name="z"), "INVALID_ARGUMENT", "no input 'z'"),
    "type": (lambda r: _changed(r, datatype="INT8"), "INVALID_ARGUMENT", "the engine takes FP32"),
    "strings": (lambda r: _changed(r, datatype="BYTES"), "INVALID_ARGUMENT", "has no strings"),
    "shape": (lambda r: _changed(r, shape=[2, 4]), "INVALID_ARGUMENT", "shape [2, 4]"),
    "negative": (lambda r: _changed(r, shape=[-2, 3]), "INVALID_ARGUMENT", "shape [-2, 3]"),
    "absurd": (lambda r: _changed(r, shape=[2**62, 3]), "RESOURCE_EXHAUSTED", "at most 65536"),
    "short": (lambda r: _changed(r, raw=[b"123"]), "INVALID_ARGUMENT", "3 bytes of data"),
    "more raw": (lambda r: _changed(r, raw=[b"", b""]), "INVALID_ARGUMENT", "2 raw_input_contents"),
    "id": (lambda r: _changed(r, id="i" * 2000), "INVALID_ARGUMENT", "at most 1024 characters"),
    "nothing": (
        *(lambda r: message("ModelInferRequest")(model_name="tiny"), "INVALID_ARGUMENT"),
        "input 'x' is missing",
    ),
    "few": (
        *(lambda r: _typed(r, "FP32", "fp32_contents", [1.0]), "INVALID_ARGUMENT"),
        "1 numbers in fp32_contents, the shape has 6",
    ),
    "field": (
        *(lambda r: _typed(r, "FP32", "int_contents", [1] * 6), "INVALID_ARGUMENT"),
        "int_contents given; FP32 goes into fp32_contents",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_told_why(running: Any, case: str) -> None:
    make, code, reason = WRONG[case]
    got = refused(running, make(running))
    assert got[0] == code
    assert reason in got[1]
    assert len(infer_grpc(running, grpc_request(running, X)).outputs) == 1


def test_numbers_that_dont_fit_the_type(start: Callable[..., Any], tmp_path: Path) -> None:
    running = start(identity(tmp_path / "b", "i8"))
    request = message("ModelInferRequest")(model_name="tiny")
    row = request.inputs.add(name="x", datatype="INT8", shape=[1, 4])
    row.contents.int_contents.extend([1, 2, 300, 4])
    assert refused(running, request) == ("INVALID_ARGUMENT", "input 'x': 300 is no INT8")


def test_both_forms_of_data(running: Any) -> None:
    request = grpc_request(running, X)
    request.inputs[0].contents.fp32_contents.extend([1.0])
    assert refused(running, request)[1].endswith("give one of them")


def test_outputs_and_parameters(running: Any) -> None:
    request = grpc_request(running, X)
    request.outputs.add(name="z")
    assert "no output 'z'; the model has: y" in refused(running, request)[1]
    request = grpc_request(running, X)
    request.parameters["sequence_id"].int64_param = 3
    assert "'sequence_id' isn't served" in refused(running, request)[1]


def test_garbage_is_an_invalid_argument(running: Any) -> None:
    with channel(running) as opened:
        for name in ("ModelInfer", "ModelMetadata", "RepositoryModelLoad"):
            with pytest.raises(grpc.RpcError) as caught:
                call(opened, name, b"\xff\xff\x01garbage")
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.details() == f"the message is no {name}Request"


def test_an_unknown_method(running: Any) -> None:
    with channel(running) as opened, pytest.raises(grpc.RpcError) as caught:
        call(opened, "ModelTrain", b"")
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_too_large_a_message(running: Any) -> None:
    for size in (1 << 16, 2 << 20, 70 << 20):
        code, reason = refused(running, _changed(running, raw=[bytes(size)]))
        assert code == "RESOURCE_EXHAUSTED"
        assert "at most 65536 are taken" in reason


def test_all_requests_together_hold_a_bounded_number_of_bytes(
    start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.serving.options.Options.held_bytes", property(lambda self: 20))
    running = start(scaled(tmp_path / "b"))
    code, reason = refused(running, grpc_request(running, X))
    assert code == "UNAVAILABLE"
    assert "bytes already; try again later" in reason
