"""Q/DQ where TensorRT 10 and later, and 8.5 with fp32 weights, compiles it into INT8 kernels.

The rules are those of NVIDIA's developer guide ("Explicit Quantization": Q/DQ placement): quantize
the inputs of layers with weights, not their results; nothing between Conv, BatchNormalization and
activation; in a residual block the skip input of the Add, so that the convolution in front of it
can write INT8 with the sum inside. Zero points have to be 0: the target says int8, symmetric.

What only moves data runs in INT8 when one scale holds for all of it, so values that meet in a
Concat share theirs. An AveragePool runs in INT8 with Q/DQ on both sides; it gets the one in front
only where others make both integers anyway. Seen in TensorRT-RTX 1.7.1 (SM89): such a pool becomes
Int8 -> Int8 and one kernel less; Q/DQ on both inputs of an Add gives the same kernels as on the
skip input alone, with one rounding more; all 52 convolutions of MobileNetV2 read Int8; a Pad in
front of one, with Q/DQ on both sides or behind it only, is computed where its input is requantized.

A target with this placement leaves `hoist_quantize` and `sink_dequantize` out: TensorRT moves Q/DQ
itself, and refuses the integer constant that a Pad in between would get.
"""

from __future__ import annotations

from collections.abc import Sequence

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

_POOLS = ("AveragePool", "GlobalAveragePool")


def tensorrt(graph: gs.Graph) -> Placement:
    """The Q/DQ positions for a graph."""
    activations: list[ActivationQuant] = []
    weights: list[WeightQuant] = []
    skipped: list[Decision] = []
    for node in graph.nodes:
        if node.op not in (*LAYERS, "Add"):
            continue
        refusal = why_float_sum(node) if node.op == "Add" else why_float(node)
        if refusal is not None:
            skipped.append(stays_float("tensorrt", node, refusal))
        elif node.op == "Add":
            activations += [ActivationQuant(node, i, "skip input of an Add") for i in _skips(node)]
        else:
            activations.append(ActivationQuant(node, 0, f"input of {node.op}"))
            weights.append(WeightQuant(node, 1, output_channel_axis(node)))
    activations += _pools(graph.nodes, activations)
    activations += _pads(activations)
    names = [a.tensor.name for a in activations]
    shared = same_values(graph.nodes, names, "they hold the same values, and move as INT8")
    return Placement(tuple(activations), tuple(weights), tuple(skipped), shared)


def _skips(node: gs.Node) -> list[int]:
    """The inputs of an Add but the one whose convolution takes the sum in: the later one."""
    summed = [i for i in (0, 1) if _convolved(node.inputs[i], node)]
    return [i for i in (0, 1) if i not in summed[-1:]]


def _convolved(tensor: gs.Tensor, reader: gs.Node) -> bool:
    """Whether a value is a convolution's, for this reader alone."""
    source = producer(tensor)
    if source is not None and source.op == "BatchNormalization":
        return only_reader(tensor) is reader and _convolved(source.inputs[0], source)
    return source is not None and source.op == "Conv" and only_reader(tensor) is reader


def _pads(activations: Sequence[ActivationQuant]) -> list[ActivationQuant]:
    """Inputs of Pads in front of layers, so that the map is written and padded in INT8."""
    found = []
    for placed in activations:
        pad = producer(placed.tensor)
        constant = pad is not None and pad.attrs.get("mode", "constant") == "constant"
        if pad is not None and pad.op == "Pad" and constant and only_reader(placed.tensor):
            found.append(ActivationQuant(pad, 0, "input of a Pad", owner=placed.node))
    return found


def _pools(
    nodes: Sequence[gs.Node], activations: Sequence[ActivationQuant]
) -> list[ActivationQuant]:
    """Inputs of average pools that are integers for another reader, where the result is too."""
    integers = {a.tensor.name for a in activations}
    return [
        ActivationQuant(node, 0, f"input of {node.op}", only_with=node.outputs[0].name)
        for node in nodes
        if node.op in _POOLS
        and node.inputs[0].name in integers
        and node.outputs[0].name in integers
    ]
