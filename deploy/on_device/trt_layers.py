"""What TensorRT made of the network: its engine inspector's JSON as rows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_TYPE = re.compile(
    r"(?i)\b(u?int8|int4|int32|int64|bf16|bfloat16|fp16|half|fp8|fp4|fp32|float|bool)\b"
)
_SPELLED = {"half": "fp16", "float": "fp32", "bfloat16": "bf16"}
# 10.x and earlier put layout and type into one text, 11 has a key for each
_TYPE_KEYS = ("Format/Datatype", "DataType", "Datatype", "Format")
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


def inspected_layers(trt: Any, engine: Any, shapes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a deserialized engine; shapes: of its dynamic inputs, else types stay unknown."""
    inspector = engine.create_engine_inspector()
    if shapes:
        context = engine.create_execution_context()
        for name, shape in shapes.items():
            context.set_input_shape(name, tuple(shape))
        inspector.execution_context = context
    return layer_rows(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def layer_rows(text: str) -> list[dict[str, Any]]:
    """name, kind, precision, kernel and fused_from per layer of the inspector's JSON.

    With less than DETAILED verbosity a layer is its name alone, and nothing else is known of it.
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except ValueError:
        # an inspector without information answers in prose
        return []
    return [_layer_row(layer if isinstance(layer, dict) else {"Name": layer}) for layer in layers]


def _layer_row(layer: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(layer.get("LayerType", ""))
    name = str(layer.get("Name", ""))
    return {
        "name": name,
        "kind": str(layer.get("ParameterType", kind)) or "unknown",
        "precision": _precision(layer),
        "kernel": str(layer.get("TacticName", kind)),
        "fused_from": _origins(name, str(layer.get("Metadata", ""))),
    }


def _precision(layer: Mapping[str, Any]) -> str:
    """Of the weights where there are any, else of what is read, else of what is written."""
    weights = layer.get("Weights")
    texts = [str(weights.get("Type", ""))] if isinstance(weights, dict) else []
    for tensor in (*_tensors(layer, "Inputs"), *_tensors(layer, "Outputs")):
        texts += [str(tensor[key]) for key in _TYPE_KEYS if key in tensor]
    for text in texts:
        found = _TYPE.search(text)
        if found:
            word = found.group(1).lower()
            return _SPELLED.get(word, word)
    return ""


def _tensors(layer: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = layer.get(key) or []
    return [tensor for tensor in found if isinstance(tensor, dict)]


def _origins(name: str, metadata: str) -> list[str]:
    """The ONNX nodes in a layer: as 8.6 and later note them, else out of the name's parts."""
    noted = _ORIGIN.findall(metadata)
    if noted:
        return list(dict.fromkeys(noted))
    if name.startswith("Reformatting CopyNode"):
        return []
    # PWN(a, PWN(b)) is a chain of elementwise nodes, {ForeignNode[a...b]} one from a to b
    plain = re.sub(r"PWN\(|\)$|\{ForeignNode\[|\]\}$", "", name)
    parts = re.split(r" \+ |, |\.\.\.| \|\| ", plain)
    return [part.strip("() ") for part in parts if part.strip("() ")]
