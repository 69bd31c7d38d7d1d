"""A Transpose moves past sums as well, and past what ONNX Runtime rounds by place.

    Conv -> Transpose -> ReduceMean, Softplus …   =>   Conv -> ReduceMean, Softplus …
    Conv -> Transpose -> LayerNormalization, MatMul … -> Transpose
    =>  Conv -> LayerNormalization written out, Conv 1x1 …

The other half of `sink_transpose`, and not to the bit: over other axes a Reduce* (all but ReduceMax
and ReduceMin) adds in another order, at most 4e-6 of the largest output away in float32 (120 seeded
reductions of each, of up to 18,000 values); Softplus, Mish, Elu, Log, Sin and the like differ by
1.2e-7 where an element is computed alone instead of in a vector. It pays as there: without it a
channels-last network would keep a Transpose before its means.

What works on the last axis by definition is written otherwise for channels in front: a MatMul by a
constant as a 1x1 Conv (9e-7), LayerNormalization and RMSNormalization as the operators they are
made of (4e-6; 120 seeded layers of each, of up to 1,300 channels). Compilers join those between two
sums, so that a map is read twice more, which a pair of Transposes outweighs: a ConvNeXt takes 0.86
of its time in OpenVINO on a CPU in float32, 0.71 in bf16 (`benchmarks/keras_layout.py`).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.rewrite import Replace, Skip
from deploy.surgery.transposed_region import turn_region


def sink_transpose_rounding(node: gs.Node) -> Replace | Skip | None:
    """Turn a region with sums in it, behind this Transpose or in front of it."""
    return turn_region(node, rounding=True)
