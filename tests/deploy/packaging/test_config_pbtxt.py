"""The configuration's text form, and our description of it against the official client's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.errors import BundleError
from deploy.packaging.config_pbtxt import config_text, new_config, parse_config, schema

_EVERYTHING = """
name: "m"  # a comment
backend: "openvino"
version_policy: { latest { num_versions: 2 } }
max_batch_size: 4
input [ { name: "a" data_type: TYPE_INT64 dims: [ -1, 3 ] reshape { shape: [ 3 ] } } ]
dynamic_batching { preferred_batch_size: [ 2, 4 ] priority_queue_policy { key: 1 value { } } }
instance_group [ { count: 2 kind: KIND_CPU gpus: [ 0 ] } ]
parameters: { key: "A" value: { string_value: "b" } }
optimization { cuda { graphs: true graph_spec { input { key: "x" value { dim: 3 } } } } }
model_warmup { name: "w" inputs { key: "a" value { dims: 3 random_data: true } } }
"""


def test_what_is_printed_parses_to_the_same(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(_EVERYTHING)
    config = parse_config(path)
    assert (config.name, config.max_batch_size, list(config.input[0].dims)) == ("m", 4, [-1, 3])
    path.write_text(config_text(config))
    assert parse_config(path) == config


def test_where_the_text_is_wrong_is_said(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text('name: "m"\nmax_batch: 3\n')
    with pytest.raises(BundleError, match=r"2:1 .*has no field named"):
        parse_config(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"name: {" * 2000, b"input " * 100])
def test_no_text_ends_in_anything_but_the_reason(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_bytes(content)
    with pytest.raises(BundleError):
        parse_config(path)


def test_our_description_is_the_official_clients() -> None:
    pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    theirs = {m.full_name.replace("inference.", "").replace(".", "_"): m for m in _messages(pb)}
    ours = {head.removeprefix("message "): rows for head, rows in schema().items()}
    assert {name for name in ours if not name.startswith("enum ")} == set(theirs)
    made = {m.name: m for m in _described(new_config().DESCRIPTOR.file)}
    for name, message in theirs.items():
        assert [_row(f) for f in message.fields] == [_row(f) for f in made[name].fields], name


def _described(file: Any) -> list[Any]:
    return list(file.message_types_by_name.values())


def _messages(module: Any) -> list[Any]:
    found, todo = [], list(module.DESCRIPTOR.message_types_by_name.values())
    while todo:
        message = todo.pop()
        if not message.GetOptions().map_entry:
            found.append(message)
            todo.extend(message.nested_types)
    return found


def _row(field: Any) -> tuple[object, ...]:
    """What the text form depends on."""
    values = [v.name for v in field.enum_type.values] if field.enum_type else []
    nested = field.message_type
    entry = nested is not None and nested.GetOptions().map_entry
    parts = [(f.name, f.type) for f in nested.fields] if entry else []
    group = field.containing_oneof.name if field.containing_oneof else ""
    return (field.name, field.type, field.is_repeated, values, parts, group)
