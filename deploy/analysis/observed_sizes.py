"""Sizes that shape inference doesn't find, from a run: a graph as it came is counted in full.

Exporters compute shapes and paddings by chains of operators that ONNX's inference doesn't follow
and a simplifier folds. Without their results the original would count for less than the simplified
graph, and the two columns couldn't be compared.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from deploy.artifacts.model import Model, copy_proto
from deploy.backends import reference
from deploy.errors import BuildError, ModelError
from deploy.noise import free_dimensions, seeded_feeds
from deploy.surgery.graph import infer


def with_observed_sizes(model: Model) -> Model:
    """The model with every size written down that is the same in two runs on different noise.

    For counting, not for building: a free batch is 1 there. The model itself where nothing is
    missing, where an input has free dimensions besides the batch, or where ONNX Runtime can't run
    it; what stays unknown is for the caller to name.
    """
    inferred = model.derive(infer(model.proto), ())
    missing = [value.name for value in _values(inferred.proto) if _is_missing(value)]
    try:
        if not missing or free_dimensions(model.inputs):
            return model
        sizes = _observed(inferred, missing)
    except (BuildError, ModelError):
        return model
    proto = copy_proto(inferred.proto)
    for value in _values(proto):
        if value.name in sizes:
            dims = [onnx.TensorShapeProto.Dimension(dim_value=s) for s in sizes[value.name]]
            value.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto(dim=dims))
    return model.derive(proto, model.decisions)


def _observed(model: Model, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of these values; those that depend on the data are left out."""
    with reference.build_observer(model, list(names), exact=True) as engine:
        found = []
        for number in (0, 1):
            values = engine.run(seeded_feeds(model.inputs, number))
            found.append({name: values[name].shape for name in names if name in values})
    first, second = found
    return {name: shape for name, shape in first.items() if second[name] == shape}


def _values(proto: onnx.ModelProto) -> Iterable[onnx.ValueInfoProto]:
    return (*proto.graph.value_info, *proto.graph.output)


def _is_missing(value: onnx.ValueInfoProto) -> bool:
    """Whether a tensor's rank, or a size of it other than the batch in front, isn't known."""
    if not value.type.HasField("tensor_type"):
        return False
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    return not tensor.HasField("shape") or any(not d.HasField("dim_value") for d in dims[1:])
