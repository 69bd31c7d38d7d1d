"""Channels of one tensor centred on zero, so that the scale covers half of what it had to.

    conv1 -> conv2   =>   (conv1 + d) -> (conv2 - W2 d), d per channel

Only where no activation function stands between, and only into layers that pad nothing: a padded
zero would no longer mean zero. Constants of residual branches add up along the chain. Costs
nothing: everything ends in biases.

Source: Wei et al. 2023, "Outlier Suppression+", section 3.1 (channel-wise shifting, there in
transformers); Nagel et al. 2019, "Data-Free Quantization", section 4.1.3 absorbs high biases alike.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.observation.evidence import Evidence
from deploy.surgery.channel_layers import Layer, Names, add_to_bias
from deploy.surgery.channel_shifts import channel_shifts, quantized_places
from deploy.surgery.graph import label


def channel_shifting(graph: gs.Graph, evidence: Evidence) -> list[Decision]:
    """Centre every channel whose constant layers can take back; a Decision per layer moved."""
    found = channel_shifts(graph)
    free = found.free
    if not free:
        return []
    seen = evidence.ranges(quantized_places(graph, found))
    low, high = found.seen({name: (r.low, r.high) for name, r in seen.items()})
    shifts = np.zeros(found.count)
    for maker in free:
        measured = maker.slots[low[maker.slots] <= high[maker.slots]]
        shifts[measured] = -(low[measured] + high[measured]) / 2
    names = Names(graph)
    found.take_back(shifts, names)
    moved = [maker for maker in free if np.any(shifts[maker.slots])]
    for maker in moved:
        add_to_bias(maker.node, shifts[maker.slots], names)
    evidence.shifted(found.totals(shifts))
    return [_decision(maker, shifts[maker.slots]) for maker in moved]


def _decision(maker: Layer, shifts: np.ndarray) -> Decision:
    reason = f"{len(shifts)} channels centred, moved by up to {np.abs(shifts).max():.3g}"
    return Decision("equalize", "channel_shifting", "applied", label(maker.node), reason)
