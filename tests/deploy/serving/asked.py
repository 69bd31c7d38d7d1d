"""A client of a few lines, over HTTP and over gRPC, that sends exactly what it is told."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from deploy.serving.grpc_messages import SERVICE, message

NAMES = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "int64": "INT64", "bool": "BOOL"}


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        length = self.headers.get("inference-header-content-length")
        return json.loads(self.body[: int(length)] if length else self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])

    def tensor(self, index: int = 0) -> np.ndarray:
        """One output, from JSON or, where only it is binary, from the bytes behind it."""
        row = self.json["outputs"][index]
        kind = {v: k for k, v in NAMES.items()}[row["datatype"]]
        if "data" in row:
            return np.array(row["data"], kind).reshape(row["shape"])
        raw = self.body[int(self.headers["inference-header-content-length"]) :]
        return np.frombuffer(raw, kind).reshape(row["shape"])


def ask(
    running: Any,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    timeout: float = 20.0,
) -> Answer:
    """One request on a connection of its own."""
    port = running.ports.http
    connection: http.client.HTTPConnection
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=tls)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        chunked = "transfer-encoding" in (headers or {})
        connection.request(method, path, body, headers or {}, encode_chunked=chunked)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())
    finally:
        connection.close()


def tensor_row(name: str, x: np.ndarray, **extra: Any) -> dict[str, Any]:
    """An input with its data as JSON."""
    row = {"name": name, "datatype": NAMES[str(x.dtype)], "shape": list(x.shape)}
    return {**row, "data": x.ravel().tolist(), **extra}


def infer(running: Any, document: Any, raw: bytes = b"", **options: Any) -> Answer:
    """An inference: a JSON document, tensors' bytes behind it, and what the test changes."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = {"inference-header-content-length": str(len(text))} if raw else {}
    headers.update(options.pop("headers", {}))
    path = options.pop("path", f"/v2/models/{running.name}/infer")
    return ask(running, "POST", path, text + raw, headers, **options)


def infer_json(running: Any, x: np.ndarray, name: str = "x", **options: Any) -> Answer:
    """One input as JSON."""
    return infer(running, {"inputs": [tensor_row(name, x)]}, **options)


def infer_binary(running: Any, x: np.ndarray, name: str = "x", **options: Any) -> Answer:
    """One input and all outputs as bytes."""
    row = {"name": name, "datatype": NAMES[str(x.dtype)], "shape": list(x.shape)}
    row["parameters"] = {"binary_data_size": x.nbytes}
    document = {"inputs": [row], "parameters": {"binary_data_output": True}}
    return infer(running, document, x.tobytes(), **options)


def channel(running: Any) -> grpc.Channel:
    """A channel of its own: gRPC shares connections otherwise."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.insecure_channel(f"127.0.0.1:{running.ports.grpc}", options=options)


def call(
    open_channel: grpc.Channel, method: str, raw: bytes, metadata: Any = None, timeout: float = 20
) -> bytes:
    """The reply's bytes; grpc.RpcError otherwise."""
    reply: bytes = open_channel.unary_unary(f"/{SERVICE}/{method}")(
        raw, timeout=timeout, metadata=metadata
    )
    return reply


def grpc_request(running: Any, x: np.ndarray, name: str = "x", **fields: Any) -> Any:
    """A ModelInferRequest with one raw input."""
    request = message("ModelInferRequest")(model_name=running.name, **fields)
    request.inputs.add(name=name, datatype=NAMES[str(x.dtype)], shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return request


def infer_grpc(running: Any, request: Any, timeout: float = 20) -> Any:
    """A ModelInferResponse; grpc.RpcError otherwise."""
    with channel(running) as opened:
        raw = call(opened, "ModelInfer", request.SerializeToString(), timeout=timeout)
    return message("ModelInferResponse").FromString(raw)


def over_grpc(running: Any, x: np.ndarray) -> np.ndarray:
    """The first output of one raw input."""
    reply = infer_grpc(running, grpc_request(running, x))
    return np.frombuffer(reply.raw_output_contents[0], "<f4").reshape(reply.outputs[0].shape)
