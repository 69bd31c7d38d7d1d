"""Channels of one tensor brought to similar ranges, so that one scale fits them all.

    conv1 -> ReLU -> conv2   =>   (s conv1) -> ReLU -> (conv2 / s), s > 0 per channel

Per-tensor INT8 gives a channel that reaches 0.1 in a tensor that reaches 6 four levels. Scaling it
up costs nothing where the layers around absorb it. Readers with a scale per channel (depthwise
convolutions) absorb any factor, so their channels are made equal; a dense reader keeps one scale
per output channel over all its inputs, so half of the imbalance, in decibels, stays in the tensor.

Sources: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", section 4.1 (there from weights alone, between two layers); Meller et al. 2019, "Same,
Same But Different" (the same for activations). Ours takes measured ranges, and sees through channel
shuffles, splits, pooling and chains of residual Adds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.observation.evidence import Evidence
from deploy.observation.observe import ChannelRange
from deploy.surgery.channel_layers import (
    Layer,
    Names,
    divide_inputs,
    layer_weights,
    scale_offset,
    scale_outputs,
)
from deploy.surgery.channel_scales import channel_scales
from deploy.surgery.channel_slots import ChannelScales
from deploy.surgery.graph import label

# values that weren't seen in calibration may pass those that were; a Clip must not cut them
_MARGIN = 1.2
# a channel at less than this share of its tensor's range is called dead and not blown up further
_FLOOR = 1 / 256
# samples below which even the headroom is a guess: 16 of the digits lose 4 dB
_FEWEST = 32


def channel_equalization(graph: gs.Graph, evidence: Evidence) -> list[Decision]:
    """Rescale every slot of channels that layers can absorb; a Decision per tensor changed."""
    if evidence.count < _FEWEST:
        reason = f"{evidence.count} samples don't show how far channels reach; give {_FEWEST}"
        return [Decision("equalize", "channel_equalization", "skipped", "all layers", reason)]
    scales = channel_scales(graph)
    if len(scales.pinned) < scales.count:
        factors = _factors(scales, evidence)
    else:
        factors = np.ones(scales.count)
    names = Names(graph)
    for layers, absorb in (
        (scales.makers, scale_outputs),
        (scales.readers, divide_inputs),
        (scales.offsets, scale_offset),
    ):
        for layer in layers:
            if np.any(factors[layer.slots] != 1):
                absorb(layer.node, factors[layer.slots], names)
    evidence.scaled({name: factors[slots] for name, slots in scales.of.items()})
    return [_decision(maker, factors[maker.slots], scales.pinned) for maker in scales.makers]


def _observed(scales: ChannelScales) -> list[str]:
    """Tensors whose channels have to be balanced: what layers read, and where a Clip bounds."""
    names = [layer.node.inputs[0].name for layer in scales.readers]
    return list(dict.fromkeys([*names, *(b.tensor.name for b in scales.bounds)]))


def _factors(scales: ChannelScales, evidence: Evidence) -> np.ndarray:
    """float64[slots]: what each slot is multiplied by."""
    seen = evidence.ranges(_observed(scales))
    share = np.zeros(scales.count)
    full = np.ones(scales.count, bool)
    for reader in scales.readers:
        if not _scale_per_input_channel(reader.node):
            full[reader.slots] = False
        name = reader.node.inputs[0].name
        found = seen.get(name)
        if found is not None:
            top = _magnitude(found)
            reach = np.where(top > 0, top + evidence.headroom(name), 0)
            np.maximum.at(share, reader.slots, reach / max(float(top.max()), 1e-30))
    wanted = 1 / np.clip(share, _FLOOR, 1)
    factors = np.where(full, wanted, np.sqrt(wanted))
    factors[share == 0] = 1
    for bound in scales.bounds:
        found = seen.get(bound.tensor.name)
        if found is None:
            factors[bound.slots] = 1
            continue
        np.minimum.at(factors, bound.slots, _room(found, bound.low, bound.high))
    factors[list(scales.pinned)] = 1
    return factors


def _magnitude(found: ChannelRange) -> np.ndarray:
    return np.asarray(np.maximum(np.abs(found.low), np.abs(found.high)), np.float64)


def _room(found: ChannelRange, low: float, high: float) -> np.ndarray:
    """How far each channel may grow without the Clip acting where it didn't; at least 1."""
    room = np.full(found.high.shape, np.inf)
    for limit, seen in ((high, found.high), (-low, -found.low)):
        if 0 < limit < np.inf:
            reached = np.maximum(seen, 1e-30).astype(np.float64)
            room = np.minimum(room, limit / (reached * _MARGIN))
    return np.asarray(np.maximum(room, 1))


def _scale_per_input_channel(node: gs.Node) -> bool:
    """A depthwise convolution: every weight scale belongs to one input channel."""
    weights = layer_weights(node)
    assert weights is not None
    return node.op == "Conv" and weights.shape[1] == 1 and int(node.attrs.get("group", 1)) > 1


def _decision(maker: Layer, factors: np.ndarray, pinned: Mapping[int, str]) -> Decision:
    changed = int(np.count_nonzero(factors != 1))
    if changed:
        reason = (
            f"{changed} of {len(factors)} channels times {factors.min():.3g} to {factors.max():.3g}"
        )
        return Decision("equalize", "channel_equalization", "applied", label(maker.node), reason)
    first = pinned.get(int(maker.slots[0]), "every channel reaches as far as it may")
    return Decision("equalize", "channel_equalization", "skipped", label(maker.node), first)
