"""config.pbtxt as a protobuf message: parsed and printed by protobuf's own text format.

The messages are described by triton_config_schema.txt and made in a pool of their own, so nothing
but protobuf is needed, which onnx brings along, and the official client's messages can live beside.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from deploy.errors import BundleError, one_line

_SCHEMA = Path(__file__).with_name("triton_config_schema.txt")
_PACKAGE = "onnx_deploy.triton"
_MAP = re.compile(r"map<(\w+),(\w+)>")
_LARGEST_BYTES = 2**20
_SCALARS = ("string", "bool", "int32", "int64", "uint32", "uint64", "float", "double")


def new_config() -> Any:
    """An empty ModelConfig message."""
    return _messages()["ModelConfig"]()


def parse_config(path: Path) -> Any:
    """The ModelConfig of a config.pbtxt; BundleError with line and column where it isn't one."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise BundleError(
                f"{path}: {path.stat().st_size} bytes; no configuration is that large"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: unreadable ({one_line(error)})") from None
    try:
        return text_format.Parse(text, new_config())
    except (text_format.ParseError, RecursionError, ValueError) as error:
        raise BundleError(f"{path}: {one_line(error)}") from None


def config_text(config: Any) -> str:
    """The message as the text Triton reads, ending in a newline."""
    return str(text_format.MessageToString(config))


def schema() -> dict[str, dict[str, str]]:
    """Message or enum -> its fields and their types; an enum's values have the type ""."""
    text = _SCHEMA.read_text(encoding="utf-8")
    # an indented line goes on with the one before
    joined = re.sub(r"\n +", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    found: dict[str, dict[str, str]] = {}
    for line in joined.splitlines():
        head, _, body = line.partition(": ")
        items = [item.strip() for item in re.split(r", (?=\w)", body) if item.strip() != "-"]
        found[head] = {name: kind for name, _, kind in (item.partition(" ") for item in items)}
    return found


@functools.cache
def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="onnx_deploy_triton.proto", package=_PACKAGE, syntax="proto3"
    )
    described = schema()
    enums = {head.removeprefix("enum ") for head in described if head.startswith("enum ")}
    for head, fields in described.items():
        kind, _, name = head.partition(" ")
        if kind == "enum":
            made = file.enum_type.add(name=name)
            for number, value in enumerate(fields):
                made.value.add(name=value, number=number)
        else:
            _add_message(file.message_type.add(name=name), fields, enums)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [head.removeprefix("message ") for head in described if head.startswith("message ")]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in names
    }


def _add_message(made: Any, fields: dict[str, str], enums: set[str]) -> None:
    groups: list[str] = []
    for number, (name, written) in enumerate(fields.items(), start=1):
        kind, _, group = written.partition("|")
        field = made.field.add(name=name, number=number)
        repeated = kind.startswith("[]")
        entry = _MAP.fullmatch(kind)
        if entry:
            nested = made.nested_type.add(name=_entry_name(name))
            nested.options.map_entry = True
            for position, (key, part) in enumerate(
                zip(("key", "value"), entry.groups(), strict=True)
            ):
                inner = nested.field.add(name=key, number=position + 1)
                inner.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
                _set_type(inner, part, enums)
            field.type_name = f".{_PACKAGE}.{made.name}.{nested.name}"
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        else:
            _set_type(field, kind.removeprefix("[]"), enums)
        field.label = (
            descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
            if repeated or entry
            else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        )
        if group:
            if group not in groups:
                groups.append(group)
                made.oneof_decl.add(name=group)
            field.oneof_index = groups.index(group)


def _set_type(field: Any, kind: str, enums: set[str]) -> None:
    types = descriptor_pb2.FieldDescriptorProto
    if kind in _SCALARS:
        field.type = getattr(types, f"TYPE_{kind.upper()}")
        return
    field.type_name = f".{_PACKAGE}.{kind}"
    field.type = types.TYPE_ENUM if kind in enums else types.TYPE_MESSAGE


def _entry_name(field: str) -> str:
    """The name protobuf gives a map's entry: input_map -> InputMapEntry."""
    return "".join(part.capitalize() for part in field.split("_")) + "Entry"
