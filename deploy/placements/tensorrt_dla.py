"""What runs in INT8 on a DLA, which is told by a calibration cache too.

As `tensorrt_implicit`, and both inputs of an elementwise sum share a range: the DLA adds integers
without rescaling them (NvInfer.h of TensorRT 8.5 and 8.6 asks for equal ranges of sums and of
pools). A chain of residual blocks thereby has one range, its widest.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_graphsurgeon as gs

from deploy.placement import Placement, SharedScale
from deploy.placements.tensorrt_implicit import tensorrt_implicit


def tensorrt_dla(graph: gs.Graph) -> Placement:
    """What runs in INT8 in a graph; told by a calibration cache, or simulated by Q/DQ."""
    found = tensorrt_implicit(graph)
    sums = tuple(
        SharedScale(tuple(t.name for t in node.inputs), "the DLA adds values of equal ranges")
        for node in found.layers
        if node.op == "Add"
    )
    skipped = tuple(replace(decision, rule="tensorrt_dla") for decision in found.skipped)
    return replace(found, skipped=skipped, shared=(*sums, *found.shared))
