"""Which channels of a graph must share one factor, and which layers can absorb it.

A channel of an activation may be stored times s > 0 when every layer that makes it multiplies its
weights by s, every layer that reads it divides by s, and everything between keeps factors: what
only moves channels, ReLU, pooling, a residual Add (both sides then share s). Channels tied this way
form one slot. Whatever isn't known to keep factors holds its inputs and outputs at 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.channel_axis import flattened, keeps_rank, read_by_bodies, starts_shuffle
from deploy.surgery.channel_layers import STANDARD, Layer, layer_weights
from deploy.surgery.channel_slots import Bound, ChannelScales, Slots
from deploy.surgery.channels import (
    channel_count,
    excited,
    moved_channels,
    moved_inputs,
    only_pixels_reduced,
)
from deploy.surgery.graph import constant, label

# f(s x) = s f(x) for every s > 0, channel by channel, for the first input
_KEEP_FACTORS = (
    *("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "LpPool"),
    *("GlobalMaxPool", "GlobalLpPool", "Identity", "Dropout", "Abs", "Neg"),
)
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2")


def channel_scales(graph: gs.Graph) -> ChannelScales:
    """The slots of a toposorted float graph whose shapes are inferred."""
    found = Slots()
    found.outside(graph.inputs, "an input of the model")
    for node in graph.nodes:
        _visit(found, node)
    found.pin(graph.outputs, "an output of the model")
    return found.merged()


def _visit(found: Slots, node: gs.Node) -> None:
    found.pin(read_by_bodies(node), f"read inside {label(node)} ({node.op})")
    if node.domain in STANDARD and (
        starts_shuffle(node) or any(rule(found, node) for rule in _RULES)
    ):
        return
    found.pin(node.inputs, f"{label(node)} ({node.op}) doesn't keep factors")
    found.outside(node.outputs, f"made by {label(node)} ({node.op})")


def _layer(found: Slots, node: gs.Node) -> bool:
    if layer_weights(node) is None:
        return False
    source = found.of.get(node.inputs[0].name)
    if source is not None:
        found.readers.append(Layer(node, source))
    made = found.fresh(node.outputs[0])
    if made is not None:
        found.makers.append(Layer(node, made))
    return True


def _keeps(found: Slots, node: gs.Node) -> bool:
    known = found.of.get(node.inputs[0].name) if node.inputs else None
    if known is None or channel_count(node.outputs[0]) != len(known):
        return False
    if node.op in _KEEP_FACTORS:
        keeps = True
    elif node.op in _REDUCTIONS:
        keeps = only_pixels_reduced(node)
    elif node.op in ("Mul", "Div"):
        keeps = constant(node.inputs[1]) is not None and keeps_rank(node)
    else:
        keeps = (node.op == "Resize" and _resizes_pixels(node)) or (
            node.op == "Pad" and _pads_pixels(node)
        )
    if keeps:
        found.of[node.outputs[0].name] = known
        # such as a slope that is computed
        found.pin(node.inputs[1:], f"an argument of {label(node)} ({node.op})")
    return keeps


def _resizes_pixels(node: gs.Node) -> bool:
    """Whether a Resize leaves batch and channels alone, and takes nothing from outside the map."""
    before, after = node.inputs[0].shape, node.outputs[0].shape
    if before is None or after is None or before[1] != after[1]:
        return False
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    all_axes = scales is not None and len(scales) == len(before) and scales[0] == 1
    crops = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    outside = crops and node.attrs.get("extrapolation_value", 0.0) != 0.0
    return not outside and (all_axes or before[0] == after[0])


def _pads_pixels(node: gs.Node) -> bool:
    """Whether a Pad leaves batch and channels alone, and pads with 0 if with a constant."""
    _, amounts, *more = [None if v.is_empty() else constant(v) for v in node.inputs]
    given = [not v.is_empty() for v in node.inputs[2:]]
    if amounts is None or any(known and v is None for known, v in zip(given, more, strict=True)):
        return False
    value, axes = [*more, None, None][:2]
    rank = len(node.inputs[0].shape)
    where = np.arange(rank) if axes is None else axes.reshape(-1) % rank
    if np.any(amounts.reshape(2, -1)[:, where < 2]):
        return False
    return node.attrs.get("mode", "constant") != "constant" or value is None or not np.any(value)


def _clips(found: Slots, node: gs.Node) -> bool:
    known = found.of.get(node.inputs[0].name) if node.op == "Clip" else None
    if known is None:
        return False
    bounds = clip_bounds(node)
    if bounds is None or bounds[0] > 0 or bounds[1] < 0:
        return False
    found.of[node.outputs[0].name] = known
    found.bounds.append(Bound(node.outputs[0], known, *bounds))
    return True


def clip_bounds(node: gs.Node) -> tuple[float, float] | None:
    """A Clip's low and high end, infinite where it has none; None where one is computed."""
    given = [None if v.is_empty() else v for v in node.inputs[1:]]
    values = [None if v is None else constant(v) for v in given]
    if any(v is not None and c is None for v, c in zip(given, values, strict=True)):
        return None
    low, high = [*values, None, None][:2]
    return (
        -np.inf if low is None else float(low.reshape(-1)[0]),
        np.inf if high is None else float(high.reshape(-1)[0]),
    )


def _adds_constant(found: Slots, node: gs.Node) -> bool:
    if node.op not in ("Add", "Sub") or not keeps_rank(node):
        return False
    data = [v for v in node.inputs if not isinstance(v, gs.Constant)]
    known = found.of.get(data[0].name) if len(data) == 1 else None
    if known is None or channel_count(node.outputs[0]) != len(known):
        return False
    found.of[node.outputs[0].name] = known
    found.offsets.append(Layer(node, known))
    return True


def _adds(found: Slots, node: gs.Node) -> bool:
    if node.op not in ("Add", "Sub", "Max", "Min", "Sum") or not keeps_rank(node):
        return False
    known = [found.of.get(v.name) for v in node.inputs]
    slots = [k for k in known if k is not None]
    if len(slots) != len(known) or len({len(k) for k in slots}) != 1:
        return False
    for other in slots[1:]:
        found.tie(slots[0], other)
    found.of[node.outputs[0].name] = slots[0]
    return True


def _excites(found: Slots, node: gs.Node) -> bool:
    pair = excited(node)
    if pair is None or pair[0].name not in found.of:
        return False
    found.pin([pair[1]], f"the factors of {label(node)}")
    found.of[node.outputs[0].name] = found.of[pair[0].name]
    return True


def _moves(found: Slots, node: gs.Node) -> bool:
    moved = moved_channels(node)
    if moved is None:
        return False
    known = [found.of.get(v.name) for v in moved_inputs(node)]
    slots = [k for k in known if k is not None]
    if len(slots) != len(known):
        return False
    laid = np.concatenate(slots)
    for out, channels in zip(node.outputs, moved, strict=True):
        found.of[out.name] = laid[channels]
    return True


def _flattens(found: Slots, node: gs.Node) -> bool:
    known = found.of.get(node.inputs[0].name) if node.inputs else None
    repeats = flattened(node)
    if known is None or repeats is None:
        return False
    found.of[node.outputs[0].name] = np.repeat(known, repeats)
    return True


_RULES: Sequence[Callable[[Slots, gs.Node], bool]] = (
    _moves,
    _layer,
    _excites,
    _clips,
    _keeps,
    _adds_constant,
    _adds,
    _flattens,
)
