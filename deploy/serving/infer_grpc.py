"""V2's inference over gRPC: messages to arrays and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploy.serving.datatypes import Datatype, check_datatype
from deploy.serving.grpc_messages import message
from deploy.serving.infer_request import (
    MOST_ID_LENGTH,
    InferRequest,
    check_parameters,
    timeout_s,
    wanted_output,
)
from deploy.serving.ports import Port, checked_names, checked_shape, from_raw, named
from deploy.serving.refusals import invalid
from deploy.serving.served import Version
from deploy.serving.waiting import Outputs

_RESPONSE = message("ModelInferResponse")


def parse(
    given: Any, version: Version, most_bytes: int, tensors: Sequence[memoryview] = ()
) -> InferRequest:
    """A request from a ModelInferRequest; tensors: its raw contents, where they were taken out."""
    parameters = check_parameters(_plain(given.parameters), "request")
    if len(given.id) > MOST_ID_LENGTH:
        raise invalid(f"id: not a string of at most {MOST_ID_LENGTH} characters")
    request = InferRequest({}, [], given.id, timeout_s(parameters))
    raw = tensors or given.raw_input_contents
    if raw and len(raw) != len(given.inputs):
        raise invalid(
            f"{len(raw)} raw_input_contents for {len(given.inputs)} inputs; give one for each, "
            "or none and the contents of each"
        )
    names = []
    for index, row in enumerate(given.inputs):
        port = named(version.inputs, row.name, "input")
        where = f"input {port.name!r}"
        check_datatype(row.datatype, port.kind, where)
        shape = checked_shape(port, list(row.shape), most_bytes)
        check_parameters(_plain(row.parameters), where)
        if raw and row.HasField("contents"):
            raise invalid(f"{where}: contents and raw_input_contents; give one of them")
        names.append(port.name)
        request.feeds[port.name] = (
            from_raw(raw[index], port, shape) if raw else _typed(row.contents, port, shape)
        )
    checked_names(version.inputs, names)
    for row in given.outputs:
        port = wanted_output(version.outputs, row.name, request.outputs)
        check_parameters(_plain(row.parameters), f"output {port.name!r}")
        request.outputs.append((port, True))
    request.outputs = request.outputs or [(port, True) for port in version.outputs]
    return request


def reply(request: InferRequest, outputs: Outputs, version: Version) -> Any:
    """A ModelInferResponse; the tensors are raw, as V2 lets a server choose."""
    response = _RESPONSE(model_name=version.name, model_version=version.number, id=request.id)
    for port, _ in request.outputs:
        x = outputs[port.name]
        response.outputs.add(name=port.name, datatype=port.kind.name, shape=x.shape)
        response.raw_output_contents.append(x.tobytes())
    return response


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    if not parameters:
        return {}
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in parameters.items()
    }


def _typed(contents: Any, port: Port, shape: tuple[int, ...]) -> np.ndarray:
    """The typed contents of one input, narrowed to its type."""
    where = f"input {port.name!r}"
    kind = port.kind
    if not kind.contents:
        raise invalid(f"{where}: {kind.name} has no typed contents; give raw_input_contents")
    others = [field.name for field, _ in contents.ListFields() if field.name != kind.contents]
    if others:
        raise invalid(f"{where}: {others[0]} given; {kind.name} goes into {kind.contents}")
    values = getattr(contents, kind.contents)
    count = int(np.prod(shape, dtype=np.int64))
    if len(values) != count:
        raise invalid(f"{where}: {len(values)} numbers in {kind.contents}, the shape has {count}")
    return _narrowed(values, kind, where).reshape(shape)


def _narrowed(values: Any, kind: Datatype, where: str) -> np.ndarray:
    wide = {"int_contents": "<i4", "uint_contents": "<u4"}.get(kind.contents)
    if wide is None:
        return np.fromiter(values, kind.dtype, len(values))
    x = np.fromiter(values, wide, len(values))
    narrow = x.astype(kind.dtype)
    if (narrow != x).any():
        raise invalid(f"{where}: {x[narrow != x][0]} is no {kind.name}")
    return narrow
