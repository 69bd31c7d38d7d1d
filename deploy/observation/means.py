"""Mean of every channel of chosen tensors, over runs of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.artifacts.model import Model, copy_proto
from deploy.backends import reference
from deploy.errors import ModelError
from deploy.surgery.graph import infer

# from here on ReduceMean takes its axes as an input
_AXES_AS_INPUT = 18


def channel_means(
    model: Model, tensors: Mapping[str, int], feeds: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """float64[C] per tensor: the mean over positions, then over runs, each run counting the same.

    tensors: name -> channel axis (-1 is the last). feeds: one per run, all inputs. The same bits
    with any number of cores. ModelError for a tensor that isn't in the model, or of unknown rank.
    """
    names = {tensor: f"{tensor}//mean" for tensor in tensors}
    with (
        reference.ReferenceEngine(_with_means(model, tensors, names), threads=1) as engine,
        ThreadPoolExecutor(reference.cores()) as pool,
    ):
        runs = list(pool.map(engine.run, feeds))
    return {
        tensor: np.mean([run[name].astype(np.float64) for run in runs], axis=0)
        for tensor, name in names.items()
    }


def _with_means(model: Model, tensors: Mapping[str, int], names: Mapping[str, str]) -> Model:
    """The model giving out the means alone."""
    proto = copy_proto(infer(model.proto))
    graph = proto.graph
    kinds = {v.name: v.type.tensor_type for v in (*graph.input, *graph.value_info, *graph.output)}
    del graph.output[:]
    for tensor, axis in tensors.items():
        if tensor not in kinds or not kinds[tensor].HasField("shape"):
            raise ModelError(f"{model.name}: {tensor!r} is no tensor of known rank")
        rank = len(kinds[tensor].shape.dim)
        axes = [i for i in range(rank) if i != axis % rank]
        graph.node.append(_mean(graph, tensor, names[tensor], axes, model.opset))
        size = kinds[tensor].shape.dim[axis % rank]
        channels = size.dim_value if size.HasField("dim_value") else None
        graph.output.append(
            helper.make_tensor_value_info(names[tensor], TensorProto.FLOAT, [channels])
        )
    return model.derive(proto, ())


def _mean(
    graph: onnx.GraphProto, tensor: str, name: str, axes: Sequence[int], opset: int
) -> onnx.NodeProto:
    if opset < _AXES_AS_INPUT:
        return helper.make_node("ReduceMean", [tensor], [name], axes=axes, keepdims=0)
    graph.initializer.append(numpy_helper.from_array(np.asarray(axes, np.int64), f"{name}/axes"))
    return helper.make_node("ReduceMean", [tensor, f"{name}/axes"], [name], keepdims=0)
