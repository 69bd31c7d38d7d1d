"""Weights stored beside an ONNX file: embedded, but only from inside the model's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.external_data_helper as external

from deploy.errors import ModelError


def embed_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Read every external tensor into the model, in place; ModelError names the file at fault."""
    for tensor in _tensors(proto):
        if not external.uses_external_data(tensor):
            continue
        info = _info(tensor, path)
        file = _inside(info.location, path, tensor.name)
        start, length = info.offset or 0, info.length
        size = file.stat().st_size
        if start + (length or 0) > size:
            raise ModelError(
                f"{path}: weight {tensor.name!r} needs bytes {start} to {start + (length or 0)} of "
                f"{file.name}, which has {size}; copy the file again, it is truncated"
            )
        with file.open("rb") as stream:
            stream.seek(start)
            tensor.raw_data = stream.read(length or -1)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _info(tensor: onnx.TensorProto, model: Path) -> external.ExternalDataInfo:
    try:
        return external.ExternalDataInfo(tensor)
    except ValueError as error:
        raise ModelError(
            f"{model}: weight {tensor.name!r} has a damaged place in its external data ({error}); "
            "export the model again"
        ) from None


def _inside(location: str, model: Path, tensor: str) -> Path:
    folder = model.parent.resolve()
    try:
        file = (folder / location).resolve()
    # a NUL byte, or links that go round in a circle
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(
            f"{model}: weight {tensor!r} points to {location!r}, which is no place for a file "
            f"({error}); export the model again"
        ) from None
    # resolve() follows links too: what counts is where the bytes really lie
    if Path(location).is_absolute() or not file.is_relative_to(folder):
        raise ModelError(
            f"{model}: weight {tensor!r} points to {location!r}, outside the model's folder; move "
            "the data beside the model and export it again"
        )
    if not file.is_file():
        raise ModelError(
            f"{model}: weight {tensor!r} needs {location!r}, which is not in {model.parent}; copy "
            "the external data file beside the model"
        )
    return file


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    # the helper walks initializers, attributes and subgraphs; there is no public spelling of it
    yield from external._get_all_tensors(proto)
