"""A configuration against the model itself, as Triton's OpenVINO backend compares them on loading.

Followed from openvino_backend db19304, openvino.cc (ValidateInputs, ValidateOutputs,
AutoCompleteBatching) and openvino_utils.cc (CompareDimsSupported), with one rule more: types have
to be equal, where the backend would silently convert.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy.errors import MissingBackendError, one_line
from deploy.packaging.triton_config import TYPES
from deploy.packaging.triton_rules import enum_name, switched_on

_Sizes = list[int]


def wrong_ports(config: Any, xml: Path) -> list[str]:
    """What of the declared inputs and outputs the model doesn't have; the model isn't compiled."""
    try:
        import openvino as ov
    except ImportError as error:
        raise MissingBackendError(
            f"OpenVINO isn't installed ({error}), which reads {xml.name}; pip install openvino"
        ) from None
    try:
        model = ov.Core().read_model(xml)
    except RuntimeError as error:
        return [f"{xml.name}: OpenVINO can't read it: {one_line(error, 160)}"]
    found = list(_inputs(config, model.inputs, ov))
    if found:
        return found
    if config.max_batch_size > 0:
        batched = _batched(model, config.max_batch_size, ov)
        if batched:
            return [batched]
    return list(_outputs(config, model.outputs))


def _batched(model: Any, size: int, ov: Any) -> str:
    """Why the model can't be given that batch, or ""; it has it afterwards."""
    try:
        for parameter in model.get_parameters():
            parameter.set_layout(ov.Layout("N..."))
        ov.set_batch(model, size)
    except RuntimeError as error:
        return f"max_batch_size {size}: the model can't take it: {one_line(error, 160)}"
    return ""


def _inputs(config: Any, ports: Sequence[Any], ov: Any) -> Iterator[str]:
    by_name = {port.get_any_name(): port for port in ports}
    declared = [row.name for row in config.input]
    there = ", ".join(sorted(by_name))
    for name in declared:
        if name not in by_name:
            yield f"input {name!r} is not the model's; it has: {there}"
    for name in sorted(set(by_name) - set(declared)):
        yield f"the model's input {name!r} is not declared"
    for row in config.input:
        port = by_name.get(row.name)
        if port is None:
            continue
        yield from _type(row, port, "input")
        dims = _declared(row)
        sizes = _sizes(port)
        if switched_on(config, "RESHAPE_IO_LAYERS"):
            continue
        if config.max_batch_size > 0:
            # the first dimension becomes the batch; -1 elsewhere takes whatever the model has
            sizes = sizes[1:]
            if len(dims) == len(sizes):
                dims = [s if d == -1 else d for d, s in zip(dims, sizes, strict=True)]
        if not _match(sizes, dims):
            yield f"input {row.name!r}: dims {_declared(row)}, the model has {sizes}"
        has_batch = ov.layout_helpers.has_batch(ov.layout_helpers.get_layout(port))
        if has_batch and config.max_batch_size == 0:
            yield f"input {row.name!r}: its layout has a batch, so Triton sets max_batch_size to 1"


def _outputs(config: Any, ports: Sequence[Any]) -> Iterator[str]:
    by_name = {port.get_any_name(): port for port in ports}
    for row in config.output:
        port = by_name.get(row.name)
        if port is None:
            yield f"output {row.name!r} is not the model's; it has: {', '.join(sorted(by_name))}"
            continue
        yield from _type(row, port, "output")
        dims = _declared(row)
        if config.max_batch_size > 0:
            dims = [config.max_batch_size, *dims]
        if not _match(_sizes(port), dims):
            yield f"output {row.name!r}: shape {dims}, the model has {_sizes(port)}"


def _type(row: Any, port: Any, kind: str) -> Iterator[str]:
    try:
        has = TYPES.get(str(port.get_element_type().to_dtype().name), "no type of Triton's")
    except RuntimeError:
        has = str(port.get_element_type())
    said = enum_name(row, "data_type")
    if has != said:
        yield f"{kind} {row.name!r}: {said}, the model has {has}"


def _declared(row: Any) -> _Sizes:
    return list(row.reshape.shape if row.HasField("reshape") else row.dims)


def _sizes(port: Any) -> _Sizes:
    return [-1 if d.is_dynamic else d.get_length() for d in port.get_partial_shape()]


def _match(model: _Sizes, declared: _Sizes) -> bool:
    """Whether shapes agree; a free dimension of the model takes any declared size."""
    return len(model) == len(declared) and all(
        size in (-1, said) for size, said in zip(model, declared, strict=True)
    )
