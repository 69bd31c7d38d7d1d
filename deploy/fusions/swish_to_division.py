"""Swish without an exponential, to the rounding of float32.

    Sigmoid -> Mul(x),  Swish   =>   x / (1 + p(x)^32),  p of degree 4

p follows exp(-x/32), and five squarings make exp(-x) of it. The result is at most 9e-7 from
x * sigmoid(x), relative where that is above 1: float32's own rounding, and 128 dB at the output of
EfficientNet-B0. It pays because OpenVINO's exponential costs more than all of this: that network
takes 0.88 of the time in INT8 and in bf16, 0.89 in float32 (benchmarks/int8_speed.py). Run it on
the final graph: in front of calibration every step of it would be observed.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.rewrite import Replace, Skip
from deploy.surgery.swish import Division, divided

FORM = Division(
    (0.99999999, -0.031249951, 4.8828699e-4, -5.0954474e-6, 3.9498359e-8),
    squarings=5,
    end=18.0,
    error=9e-7,
)


def swish_to_division(node: gs.Node) -> Replace | Skip | None:
    """Replace the swish that this node ends."""
    return divided(node, FORM)
