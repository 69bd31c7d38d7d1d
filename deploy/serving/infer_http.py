"""V2's inference over HTTP: a JSON object, with its tensors in it or as bytes behind it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from deploy.serving.datatypes import from_json, to_json
from deploy.serving.infer_request import (
    MOST_ID_LENGTH,
    InferRequest,
    check_parameters,
    timeout_s,
    wanted_output,
)
from deploy.serving.ports import Port, checked, checked_names, from_raw
from deploy.serving.refusals import Kind, RefusalError, invalid
from deploy.serving.served import Version
from deploy.serving.waiting import Outputs

HEADER_LENGTH = "inference-header-content-length"


def header_length(given: str | None, total: int, most: int) -> int:
    """How many bytes of the body are JSON: all of it without the header."""
    length = total
    if given is not None:
        if not (given.isascii() and given.isdigit() and len(given) < 16):
            raise invalid(f"{HEADER_LENGTH}: {given[:40]!r}; give the number of bytes of JSON")
        length = int(given)
        if length > total:
            raise invalid(f"{HEADER_LENGTH}: {length}, but the body has only {total} bytes")
    if length > most:
        raise RefusalError(
            Kind.TOO_LARGE,
            f"{length} bytes of JSON; at most {most} are taken, send the tensors as binary data",
        )
    return length


def parse(
    body: bytes | bytearray | memoryview, length: int, version: Version, most_bytes: int
) -> InferRequest:
    """A request from its body, the first `length` bytes of it JSON."""
    view = memoryview(body)
    document = _json(bytes(view[:length]))
    parameters = check_parameters(document.get("parameters"), "request")
    request = InferRequest({}, [], _id(document.get("id", "")), timeout_s(parameters))
    at = length
    names = []
    for row in _rows(document.get("inputs"), "inputs"):
        port, shape = checked(version.inputs, row, most_bytes)
        where = f"input {port.name!r}"
        size = check_parameters(row.get("parameters"), where).get("binary_data_size")
        if size is None:
            x = from_json(row.get("data"), port.kind, shape, where)
        else:
            x, at = _binary(view, at, size, port, shape, "data" in row)
        names.append(port.name)
        request.feeds[port.name] = x
    checked_names(version.inputs, names)
    if at != len(view):
        raise invalid(f"{len(view) - at} bytes behind the last tensor; the body is {len(view)}")
    request.outputs = _outputs(document, version, bool(parameters.get("binary_data_output")))
    return request


def reply(request: InferRequest, outputs: Outputs, version: Version) -> tuple[bytes, int | None]:
    """The body of the response and, when tensors follow it, the length of its JSON."""
    rows: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for port, binary in request.outputs:
        x = outputs[port.name]
        row: dict[str, Any] = {
            "name": port.name,
            "datatype": port.kind.name,
            "shape": list(x.shape),
        }
        if binary:
            raw.append(x.tobytes())
            row["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            row["data"] = to_json(x, port.kind, f"output {port.name!r}")
        rows.append(row)
    document: dict[str, Any] = {"model_name": version.name, "model_version": version.number}
    if request.id:
        document["id"] = request.id
    header = _ENCODER.encode({**document, "outputs": rows}).encode()
    return (b"".join([header, *raw]), len(header)) if raw else (header, None)


def _json(text: bytes) -> dict[str, Any]:
    try:
        document = _DECODER.decode(text.decode())
    except RecursionError:
        raise invalid("the JSON is nested too deeply") from None
    except ValueError as error:
        raise invalid(f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise invalid('the body is no JSON object; give {"inputs": […]}')
    return document


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON; send such numbers as binary data")


# made once: json.loads and json.dumps make one for each call that has options
_DECODER = json.JSONDecoder(parse_constant=_refuse)
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def _id(given: Any) -> str:
    if not isinstance(given, str) or len(given) > MOST_ID_LENGTH:
        raise invalid(f"id: not a string of at most {MOST_ID_LENGTH} characters")
    return given


def _rows(given: Any, what: str) -> list[Any]:
    if not isinstance(given, list):
        raise invalid(f"{what} is missing or no list; give one object per tensor")
    return given


def _binary(
    view: memoryview, at: int, size: Any, port: Port, shape: tuple[int, ...], also: bool
) -> tuple[np.ndarray, int]:
    where = f"input {port.name!r}"
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise invalid(f"{where}: binary_data_size {str(size)[:40]!r}; give the number of bytes")
    if also:
        raise invalid(f"{where}: has data and binary_data_size; give one of them")
    if at + size > len(view):
        raise invalid(
            f"{where}: binary_data_size {size}, but only {len(view) - at} bytes are left; the body "
            "is cut short"
        )
    return from_raw(view[at : at + size], port, shape), at + size


def _outputs(document: dict[str, Any], version: Version, binary: bool) -> list[tuple[Port, bool]]:
    if document.get("outputs") is None:
        return [(port, binary) for port in version.outputs]
    wanted: list[tuple[Port, bool]] = []
    for row in _rows(document["outputs"], "outputs"):
        if not isinstance(row, dict):
            raise invalid("an output is no JSON object; give its name")
        port = wanted_output(version.outputs, row.get("name"), wanted)
        parameters = check_parameters(row.get("parameters"), f"output {port.name!r}")
        wanted.append((port, bool(parameters.get("binary_data", binary))))
    return wanted or [(port, binary) for port in version.outputs]
