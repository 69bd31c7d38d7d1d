"""The fused layers that TensorRT-RTX's compiler lists in its verbose log."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from deploy.artifacts.engine import Layer

# a line of the list: its fields, and what stands in them
_LINE = re.compile(r"Name: (.+?), LayerType: (\w+), ")
_FIELD = re.compile(r"(?:^|, )(Inputs|Constants|Outputs|TacticName|StreamId|Metadata): ")
_TENSOR = re.compile(r"Dimensions: \[([-\d,]*)\].*?Datatype: (\w+)")
_ORIGIN = re.compile(r"\[ONNX Layer: (.*?)\](?=\x1f|\[|$)")
_SPELLED = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16"}
_BYTES = {"int64": 8, "fp32": 4, "int32": 4, "fp16": 2, "bf16": 2}


def layers_in(log: str) -> Iterator[Layer]:
    """The layers in order of execution, without what only lets one stream wait for another.

    precision: the types of the values a layer reads, and behind an arrow those it writes where
    these differ: "int8 -> fp32", "int8+fp32 -> int8". Weights don't count. fused_from: nodes of
    the ONNX graph.
    """
    for name, kind, fields in _rows(log):
        reads, writes = ("+".join(_types(fields, key)) for key in ("Inputs", "Outputs"))
        yield Layer(
            name=name,
            kind=kind,
            precision=reads if writes in ("", reads) else f"{reads} -> {writes}".strip(),
            kernel=fields.get("TacticName", "").split(",")[0],
            fused_from=tuple(dict.fromkeys(_ORIGIN.findall(fields.get("Metadata", "")))),
        )


def bytes_moved(log: str) -> int:
    """What the listed layers read and write in one run, without weights; a free dimension counts
    as one."""
    return sum(
        math.prod(abs(int(size)) for size in shape.split(",") if size) * _BYTES.get(kind, 1)
        for _, _, fields in _rows(log)
        for key in ("Inputs", "Outputs")
        for shape, kind in _tensors(fields, key)
    )


def _rows(log: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Name, kind and fields of every layer that computes."""
    for line in log.split("\n"):
        head = _LINE.match(line)
        if head is None:
            continue
        parts = _FIELD.split(line[head.end() :].rstrip())
        fields = dict(zip(parts[1::2], parts[2::2], strict=True))
        if _tensors(fields, "Inputs") or _tensors(fields, "Outputs"):
            yield head[1], head[2], fields


def _types(fields: dict[str, str], key: str) -> dict[str, None]:
    return dict.fromkeys(kind for _, kind in _tensors(fields, key))


def _tensors(fields: dict[str, str], key: str) -> list[tuple[str, str]]:
    """Sizes and type of each tensor, its type in the words used here."""
    found = _TENSOR.findall(fields.get(key, ""))
    return [(shape, _SPELLED.get(word, word.lower())) for shape, word in found]
