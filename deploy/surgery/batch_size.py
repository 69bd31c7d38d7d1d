"""A free batch dimension fixed to a size, for compilers that want to know it."""

from __future__ import annotations

import onnx

from deploy.artifacts.model import Model, copy_proto
from deploy.surgery.graph import verified


def with_fixed_batch(model: Model, size: int) -> Model:
    """The model with `size` for the free first dimension of its inputs, and for every dimension of
    an input or output that has the same name; itself where no input has a free one."""
    given = {i.name for i in model.proto.graph.initializer}
    proto = copy_proto(model.proto)
    inputs = [v for v in proto.graph.input if v.name not in given]
    free = [d for d in map(_first, inputs) if d is not None and not d.HasField("dim_value")]
    if not free:
        return model
    names = {d.dim_param for d in free if d.dim_param}
    for dimension in free:
        dimension.dim_value = size
    ports = (*inputs, *proto.graph.output)
    for dimension in (d for v in ports for d in v.type.tensor_type.shape.dim):
        if dimension.dim_param in names:
            dimension.dim_value = size
        elif dimension.dim_value < 0:
            # how PaddlePaddle's exporter writes a free size, which inference takes for a number
            dimension.Clear()
    del proto.graph.value_info[:]
    return model.derive(verified(proto, model.name), model.decisions)


def _first(value: onnx.ValueInfoProto) -> onnx.TensorShapeProto.Dimension | None:
    shape = value.type.tensor_type.shape
    return shape.dim[0] if len(shape.dim) else None
