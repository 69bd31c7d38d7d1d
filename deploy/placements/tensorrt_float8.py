"""Q/DQ in float8 where TensorRT has FP8 kernels: convolutions of one group, and matrix products.

The positions are `tensorrt`'s, less what NVIDIA has no FP8 kernel for:

- grouped and depthwise convolutions: "no optimized FP8 convolutions" for them, INT8 is recommended
  for networks that hold them (release notes of TensorRT 10.12 and 10.16, limitations; issue 4524
  of NVIDIA/TensorRT);
- kernels of more than 32 elements, such as 7x7: float16 kernels run behind the Q/DQ (release notes
  10.16, for compute capabilities 8.9, 9.0, 12.0 and 12.1);
- fewer than 16 input or output channels: NVIDIA's Model Optimizer leaves those out
  (modelopt/onnx/quantization/graph_utils.py), and for a first layer of three channels TensorRT 10.2
  found no implementation (issue 3987 of NVIDIA/TensorRT);
- transposed convolutions and pools: no document of NVIDIA's gives them in FP8.

A residual sum reads float8 where the convolution that takes it in does. FP8 has no implicit form:
it is always Q/DQ (documentation, "Working with Quantized Types"), symmetric, activations per
tensor, weights per output channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.placement import ActivationQuant, Placement, WeightQuant
from deploy.quantizable import (
    LAYERS,
    only_reader,
    output_channel_axis,
    same_values,
    stays_float,
    why_float,
    why_float_sum,
)
from deploy.surgery.graph import producer

_NAME = "tensorrt_float8"
_FEWEST_CHANNELS = 16
_LARGEST_KERNEL = 32


def tensorrt_float8(graph: gs.Graph) -> Placement:
    """The Q/DQ positions for a graph."""
    activations: list[ActivationQuant] = []
    weights: list[WeightQuant] = []
    skipped: list[Decision] = []
    for node in graph.nodes:
        if node.op in LAYERS:
            refusal = why_float(node) or _why_no_kernel(node)
            if refusal is not None:
                skipped.append(stays_float(_NAME, node, refusal))
                continue
            activations.append(ActivationQuant(node, 0, f"input of {node.op}"))
            weights.append(WeightQuant(node, 1, output_channel_axis(node)))
    placed = {id(w.node) for w in weights}
    for node in graph.nodes:
        if node.op == "Add":
            found = _skip(node, placed)
            if isinstance(found, str):
                skipped.append(stays_float(_NAME, node, found))
            else:
                activations.append(found)
    names = [a.tensor.name for a in activations]
    shared = same_values(graph.nodes, names, "they hold the same values, and move as float8")
    return Placement(tuple(activations), tuple(weights), tuple(skipped), shared)


def _why_no_kernel(node: gs.Node) -> str | None:
    """Why a layer with weights has no FP8 kernel; None when it has."""
    shape = [int(size) for size in np.shape(node.inputs[1].values)]
    if node.op == "ConvTranspose":
        return "a transposed convolution, which NVIDIA doesn't offer in FP8"
    if node.op != "Conv":
        return _why_small(node.op, shape[-2:])
    if int(node.attrs.get("group", 1)) != 1:
        return "a grouped convolution: TensorRT has no optimized FP8 kernel for it, INT8 has"
    if int(np.prod(shape[2:])) > _LARGEST_KERNEL:
        size = "x".join(map(str, shape[2:]))
        return f"a {size} kernel: TensorRT's FP8 convolutions take {_LARGEST_KERNEL} elements"
    return _why_small("Conv", shape[:2])


def _why_small(op: str, channels: Sequence[int]) -> str | None:
    if min(channels) >= _FEWEST_CHANNELS:
        return None
    return f"{op} of {min(channels)} channels: FP8 needs {_FEWEST_CHANNELS} on both sides"


def _skip(node: gs.Node, placed: set[int]) -> ActivationQuant | str:
    """The input of an Add that isn't the convolution's that takes the sum in, or why it stays
    float."""
    refusal = why_float_sum(node)
    if refusal is not None:
        return refusal
    makers = [_convolution(node.inputs[i], node, placed) for i in (0, 1)]
    for index, maker in reversed(list(enumerate(makers))):
        if maker is not None:
            # without 8 bits in the convolution there is no kernel that would read them here
            beside = maker.inputs[0].name
            return ActivationQuant(node, 1 - index, "skip input of an Add", only_with=beside)
    return "no FP8 convolution in front of it takes the sum in"


def _convolution(tensor: gs.Tensor, reader: gs.Node, placed: set[int]) -> gs.Node | None:
    """The FP8 convolution that makes a value for this reader alone."""
    source = producer(tensor)
    if source is None or only_reader(tensor) is not reader:
        return None
    if source.op == "BatchNormalization":
        return _convolution(source.inputs[0], source, placed)
    return source if source.op == "Conv" and id(source) in placed else None
