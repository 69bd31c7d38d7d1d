"""SmoothQuant where it costs no pass over a map: absorbed by a constant, or a Mul of tokens.

As `smooth_quant`, but without a Mul of a convolution's map, whatever it promises. OpenVINO makes
such a Mul part of the quantization behind it; on a GPU it is a pass over the map, and it stands
between a channel shuffle and the depthwise convolution that one kernel could compute. ShuffleNetV1
with TensorRT's symmetric INT8 has 22.0 dB so, and 22.1 with 16 such Muls.

Source: Xiao et al. 2022, "SmoothQuant", equation 4; see smooth_quant.
"""

from __future__ import annotations

import math
from dataclasses import replace

import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.equalizations.smooth_quant import smoothed
from deploy.observation.evidence import Evidence


def smooth_quant_tokens(graph: gs.Graph, evidence: Evidence) -> list[Decision]:
    """Move factors per channel from activations into weights where it pays; a Decision each."""
    made = smoothed(graph, evidence, maps_db=math.inf)
    return [replace(decision, rule="smooth_quant_tokens") for decision in made]
