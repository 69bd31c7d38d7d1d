"""The routes over HTTP and the OpenAPI document that describes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from deploy.serving.datatypes import DATATYPES


@dataclass(frozen=True)
class HttpRoute:
    """One procedure: its method and the paths it answers on, the versioned one last.

    refusals: the statuses beside 200; body, reply: JSON schemas by name.
    """

    name: str
    method: str
    paths: tuple[str, ...]
    summary: str
    reply: str = "Object"
    refusals: tuple[int, ...] = ()
    body: str = ""


_MODEL = "/v2/models/{name}"
_VERSION = "/v2/models/{name}/versions/{version}"
ROUTES = (
    HttpRoute("server", "GET", ("/v2",), "Name, version and extensions"),
    HttpRoute("live", "GET", ("/v2/health/live",), "Whether the process answers"),
    HttpRoute("ready", "GET", ("/v2/health/ready",), "Whether inferences are welcome"),
    HttpRoute("metrics", "GET", ("/metrics",), "Prometheus' figures", "Text"),
    HttpRoute("openapi", "GET", ("/openapi.json",), "This document"),
    HttpRoute("model", "GET", (_MODEL, _VERSION), "Inputs and outputs", refusals=(404,)),
    HttpRoute(
        *("model_ready", "GET", (f"{_MODEL}/ready", f"{_VERSION}/ready")),
        "Whether the model answers",
        refusals=(404,),
    ),
    HttpRoute(
        *("infer", "POST", (f"{_MODEL}/infer", f"{_VERSION}/infer")),
        "Inference: JSON, or JSON followed by the tensors' bytes",
        "InferResponse",
        (400, 404, 408, 413, 415, 500, 503, 504),
        "InferRequest",
    ),
    HttpRoute(
        *("index", "POST", ("/v2/repository/index",), "The model that is served", "List"),
        (400, 408, 413),
    ),
    HttpRoute(
        *("load", "POST", ("/v2/repository/models/{name}/load",)),
        "Take the bundle that is on disk now; the old one serves until the new one is ready",
        refusals=(400, 404, 408, 413),
    ),
    HttpRoute(
        *("unload", "POST", ("/v2/repository/models/{name}/unload",), "Always refused"),
        refusals=(400, 404),
    ),
)
_WHY = {
    400: "Not what is taken; the reason says why",
    401: "No token, or not this server's",
    404: "No such model or version",
    408: "The body came too slowly",
    413: "Too large",
    415: "A compressed body",
    500: "The engine stopped",
    503: "Too much waits already, or the server is stopping",
    504: "Not done before the deadline",
}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    properties = {**required, **optional}
    return {"type": "object", "required": list(required), "properties": properties}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


_STRING = {"type": "string"}
_TABLE = {"type": "object"}
_TENSOR = _object(
    {
        "name": _STRING,
        "datatype": {"type": "string", "enum": list(DATATYPES)},
        "shape": _list({"type": "integer", "minimum": 0}),
    },
    data=_list({}),
    parameters=_TABLE,
)
SCHEMAS: dict[str, Any] = {
    "Object": _TABLE,
    "List": _list(_TABLE),
    "Text": _STRING,
    "Error": _object({"error": _STRING}),
    "InferRequest": _object(
        {"inputs": _list(_TENSOR)},
        id=_STRING,
        parameters=_TABLE,
        outputs=_list(_object({"name": _STRING}, parameters=_TABLE)),
    ),
    "InferResponse": _object(
        {"model_name": _STRING, "model_version": _STRING, "outputs": _list(_TENSOR)}, id=_STRING
    ),
}


def document(model: str) -> dict[str, Any]:
    """The OpenAPI document of `ROUTES` for the one model of that name."""
    paths: dict[str, Any] = {}
    for route in ROUTES:
        for path in route.paths:
            paths[path] = {route.method.lower(): _operation(route, path, model)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "onnx-deploy serve", "version": "2"},
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: HttpRoute, path: str, model: str) -> dict[str, Any]:
    named = re.findall(r"{(\w+)}", path)
    kinds = {"name": {"type": "string", "enum": [model]}, "version": {**_STRING, "example": "1"}}
    statuses = sorted({*route.refusals, 401, 503} - ({401} if "/health/" in path else set()))
    answers = {
        str(status): {"description": _WHY[status], "content": _json("Error")} for status in statuses
    }
    if route.name in ("ready", "model_ready"):
        answers["503"]["content"] = _json("Object")
    content = {"text/plain": {"schema": _ref("Text")}} if route.reply == "Text" else {}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.name + ("_version" if "version" in named else ""),
        "security": [{}, {"token": []}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": kinds[name]} for name in named
        ],
        "responses": {
            "200": {"description": "Done", "content": content or _json(route.reply)},
            **answers,
        },
    }
    if route.name == "infer":
        operation["responses"]["200"]["content"]["application/octet-stream"] = {}
    if route.body:
        operation["requestBody"] = {"required": True, "content": _json(route.body)}
    return operation


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(schema)}}


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}
