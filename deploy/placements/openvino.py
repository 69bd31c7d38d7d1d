"""Q/DQ where OpenVINO's low precision transformations turn it into integer kernels.

Data and weights of Conv, ConvTranspose, Gemm and MatMul, and both inputs of residual Adds: an Add
whose inputs are integers can become the sum step of the convolution in front of it. Measured on
MobileNetV2 (one core, interleaved, batch 1): quantized Adds 1.62 ms and 24.3 dB, float Adds
1.70 ms and 24.1 dB.

What only moves data is carried along as uint8 by OpenVINO itself, and values that are split,
concatenated and pooled share one scale, so that nothing in between has to be requantized in float:
ShuffleNetV2 x1.0 0.91 and x0.5 0.90 of the time without; ResNet20 loses no dB.

Everything else stays float. Measured and left out: products and averages of squeeze-and-excitation
(EfficientNet-B0 1.4 times as slow), the average of the head (no difference).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.placement import ActivationQuant, Placement, WeightQuant
from deploy.quantizable import (
    LAYERS,
    output_channel_axis,
    same_values,
    stays_float,
    why_float,
    why_float_sum,
)


def openvino(graph: gs.Graph) -> Placement:
    """The Q/DQ positions for a graph."""
    activations: list[ActivationQuant] = []
    weights: list[WeightQuant] = []
    skipped: list[Decision] = []
    for node in graph.nodes:
        if node.op not in (*LAYERS, "Add"):
            continue
        refusal = why_float_sum(node) if node.op == "Add" else why_float(node)
        if refusal is not None:
            skipped.append(stays_float("openvino", node, refusal))
        elif node.op == "Add":
            activations += [ActivationQuant(node, i, "input of a residual Add") for i in (0, 1)]
        else:
            activations.append(ActivationQuant(node, 0, f"input of {node.op}"))
            weights.append(WeightQuant(node, 1, output_channel_axis(node)))
    names = [a.tensor.name for a in activations]
    shared = same_values(graph.nodes, names, "they hold the same values, and move as uint8")
    return Placement(tuple(activations), tuple(weights), tuple(skipped), shared)
