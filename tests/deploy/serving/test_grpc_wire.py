"""Taking the tensors out of a message: what is left and what was taken are the whole message."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.serving import grpc_wire
from deploy.serving.grpc_messages import message
from deploy.serving.grpc_wire import raw_apart

REQUEST = message("ModelInferRequest")


@pytest.fixture(autouse=True, scope="module")
def _small_ones_too() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpc_wire, "_LARGE", 0)
        yield


def whole(rest: bytes, tensors: list[memoryview]) -> Any:
    request = REQUEST.FromString(rest)
    request.raw_input_contents.extend(bytes(tensor) for tensor in tensors)
    return request


@settings(deadline=None)
@given(st.text(max_size=300), st.lists(st.binary(max_size=300), max_size=4), st.booleans())
def test_both_parts_are_the_message(name: str, raw: list[bytes], typed: bool) -> None:
    request = REQUEST(model_name=name, raw_input_contents=raw)
    row = request.inputs.add(name=name, shape=[3, 2**40])
    request.parameters["timeout"].int64_param = 7
    if typed:
        row.contents.fp64_contents.extend([1.5, 2])
    rest, tensors = raw_apart(request.SerializeToString())
    assert [bytes(tensor) for tensor in tensors] == raw
    assert whole(rest, tensors) == request


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_anything_else_is_left_to_protobuf(data: bytes) -> None:
    try:
        wanted = REQUEST.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            whole(*raw_apart(data))
        return
    assert whole(*raw_apart(data)) == wanted


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a\x05abc",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0d\x01\x02\x03\x04",
        b"\x0a\x00" * 1000,
    ],
    ids=["cut short", "endless length", "fixed", "too many fields"],
)
def test_in_doubt_nothing_is_taken(data: bytes) -> None:
    assert raw_apart(data) == (data, [])


def test_small_messages_arent_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_wire, "_LARGE", 1 << 16)
    data = REQUEST(raw_input_contents=[b"abc"]).SerializeToString()
    assert raw_apart(data) == (data, [])
