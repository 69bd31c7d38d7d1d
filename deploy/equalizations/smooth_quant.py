"""Outlier channels moved from an activation into the weights of the layers that read it.

    LayerNorm(gamma, beta) -> MatMul(W)   =>   LayerNorm(gamma / s, beta / s) -> MatMul(s W)
    HardSwish -> Mul(a) -> Conv(W)        =>   HardSwish -> Mul(a / s) -> Conv(s W)
    GELU -> MatMul(W)                     =>   GELU -> Mul(1 / s) -> MatMul(s W)

A few channels of a transformer's activations are tens of times as large as all others, always the
same ones, and a scale per tensor leaves the others a handful of levels. A factor per channel moves
a part of that imbalance into the weights, whose scales are per output channel. Unlike channel
equalization it needs nothing of the function in front. Nothing is added where a constant in front
absorbs the factors; else one Mul for all layers that read the tensor, if it pays by the expected
noise. OpenVINO makes such a Mul part of the quantization behind it (one core, interleaved, 24 in
MiniLM 0.90 to 1.0 of the time, 5 in PP-OCRv4's recognizer 1.0); 27 of small gain in FastestDet's
maps cost 1.05 of it, so maps have to gain more. With those that do against none, judged on the
half of the calibration samples that wasn't used, median of CPU time by round on a busy machine:
FastestDet 10, 18.1 and 16.4 dB, 1.06 of the time; PP-OCR's direction 4, 25.7 and 25.2 dB, 1.0;
ShuffleNetV1 15, 28.6 and 28.4 dB, 1.06 to 1.12.

SQNR with minmax and bias correction, without and with it: MiniLM 19.9 and 25.8 dB, the recognizer
12.9 and 20.9 dB (its scalar Mul behind every HardSwish absorbs most), FastestDet 16.0 and 16.1.

Source: Xiao et al. 2022, "SmoothQuant", equation 4: s_j = max|X_j|^a / max|W_j|^(1 - a). Their one
`a` per network is chosen here per tensor, by the noise that measured ranges and weights let expect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.observation.evidence import Evidence
from deploy.observation.observe import ChannelRange
from deploy.surgery.channel_layers import (
    STANDARD,
    Names,
    divide_inputs,
    layer_weights,
    own_constant,
)
from deploy.surgery.graph import constant, is_output, label, producer

_STRENGTHS = np.linspace(0.1, 1, 10)
# expected noise less, in dB, from which on it pays: absorbed, by a Mul of tokens, by one of maps
_FREE_DB, _TOKENS_DB, _MAPS_DB = 0.2, 1.0, 6.0
# a channel at less than this share of its tensor's largest isn't blown up further
_FLOOR = 1 / 256
# extremes of calibration in standard deviations of a channel, for the noise of rounded weights
_SIGMAS = 6.0
_ACTIVATION_STEPS, _WEIGHT_LEVELS = 255, 127


@dataclass(frozen=True)
class Place:
    """A tensor, its channel axis, and the layers of constant weights that read it."""

    tensor: gs.Tensor
    axis: int
    layers: list[gs.Node]

    def along(self, factors: np.ndarray) -> np.ndarray:
        """The factors shaped to go with the tensor."""
        return factors.reshape(-1, *[1] * (len(self.tensor.shape) - 1 - self.axis))


def smooth_quant(graph: gs.Graph, evidence: Evidence) -> list[Decision]:
    """Move factors per channel from activations into weights where it pays; a Decision each."""
    return smoothed(graph, evidence)


def smoothed(graph: gs.Graph, evidence: Evidence, *, maps_db: float = _MAPS_DB) -> list[Decision]:
    """The same; a Mul of a map has to promise `maps_db` less noise."""
    places = _places(graph)
    names = Names(graph)
    seen: dict[str, ChannelRange] = {}
    for axis in sorted({place.axis for place in places}):
        seen |= evidence.ranges([p.tensor.name for p in places if p.axis == axis], axis)
    chosen = [(p, _chosen(p, seen, evidence.symmetric)) for p in places]
    return [_smooth(graph, p, found, names, maps_db) for p, found in chosen]


def _places(graph: gs.Graph) -> list[Place]:
    found: dict[str, Place] = {}
    for node in graph.nodes:
        weights, source = grouped_weights(node), node.inputs[0] if node.inputs else None
        if weights is None or source is None or source.shape is None:
            continue
        axis = len(source.shape) - 1 if node.op == "MatMul" else 1
        count = weights.shape[0] * weights.shape[1]
        if source.shape[axis] != count or source.dtype != np.float32:
            continue
        place = found.setdefault(source.name, Place(source, axis, []))
        if place.axis == axis:  # else a reader that needs the values as they are
            place.layers.append(node)
    return list(found.values())


def grouped_weights(node: gs.Node) -> np.ndarray | None:
    """float64[groups, C / groups, M / groups, taps]; None for no layer of constant weights."""
    weights = layer_weights(node)
    if weights is None and node.op == "MatMul" and node.domain in STANDARD:
        # tokens [..., C], whose channels are the last axis
        weights = constant(node.inputs[1])
        if len(node.inputs[0].shape or ()) < 3 or weights is None or weights.ndim != 2:
            return None
    if weights is None or weights.dtype != np.float32 or isinstance(node.inputs[0], gs.Constant):
        return None
    wide = weights.astype(np.float64)
    if node.op in ("MatMul", "Gemm"):
        return (wide.T if node.attrs.get("transB", 0) else wide)[None, :, :, None]
    if node.op == "ConvTranspose":
        return wide.reshape(1, *wide.shape[:2], -1)
    group = int(node.attrs.get("group", 1))
    return np.swapaxes(wide.reshape(group, len(wide) // group, wide.shape[1], -1), 1, 2)


def _chosen(
    place: Place, seen: Mapping[str, ChannelRange], symmetric: bool
) -> tuple[np.ndarray, float]:
    weights = [w for w in map(grouped_weights, place.layers) if w is not None]
    found = seen[place.tensor.name]
    ends = np.stack([np.minimum(found.low, 0), np.maximum(found.high, 0)]).astype(np.float64)
    return best_factors(weights, ends, symmetric=symmetric)


def best_factors(
    weights: Sequence[np.ndarray], ends: np.ndarray, *, symmetric: bool
) -> tuple[np.ndarray, float]:
    """float64[C] with a geometric mean of 1, and how much less noise they promise in dB.

    weights: as `grouped_weights` gives them; ends: float64[2, C], low at most 0 and high at least.
    """
    top = np.abs(ends).max(axis=0)
    if not top.max() > 0:
        return np.ones(len(top)), 0.0
    data = np.maximum(top, _FLOOR * top.max())
    rows = np.max([np.abs(w).max(axis=(2, 3)).reshape(-1) for w in weights], axis=0)
    rows = np.maximum(rows, max(_FLOOR * float(rows.max()), 1e-30))
    logs = [a * np.log(data) - (1 - a) * np.log(rows) for a in _STRENGTHS]
    tried = [np.ones(len(top)), *(np.exp(x - x.mean()) for x in logs)]
    noise = [sum(_noise(w, ends, s, symmetric) for w in weights) for s in tried]
    best = int(np.argmin(noise))
    return tried[best], float(10 * np.log10(noise[0] / noise[best])) if noise[best] else 0.0


def _noise(weights: np.ndarray, ends: np.ndarray, factors: np.ndarray, symmetric: bool) -> float:
    """Expected squared error of a layer's outputs, summed over them, from 8-bit rounding (steps
    squared / 12) of data divided by the factors and of weights times the factors."""
    group, inputs, _, taps = weights.shape
    scaled, low_high = weights * factors.reshape(group, inputs, 1, 1), ends / factors
    width = 2 * np.abs(low_high).max() if symmetric else low_high[1].max() - low_high[0].min()
    of_data = (width / _ACTIVATION_STEPS) ** 2 * np.square(scaled).sum()
    energy = np.square(np.abs(low_high).max(axis=0) / _SIGMAS).reshape(group, inputs).sum(axis=1)
    steps = np.square(np.abs(scaled).max(axis=(1, 3)) / _WEIGHT_LEVELS).sum(axis=1)
    return float(of_data + taps * (steps * energy).sum()) / 12


def _smooth(
    graph: gs.Graph, place: Place, chosen: tuple[np.ndarray, float], names: Names, maps_db: float
) -> Decision:
    factors, gain_db = chosen
    absorbers, obstacle = _absorbers(place, len(factors))
    tokens = len(place.tensor.shape) == place.axis + 1 > 2
    by_mul = _TOKENS_DB if tokens else maps_db
    least = _FREE_DB if absorbers else by_mul
    if gain_db < least:
        reason = f"{gain_db:.1f} dB less noise expected, under {least:g} dB"
        if np.isinf(least):
            reason = f"{gain_db:.1f} dB less noise expected, but a Mul of a map isn't wanted here"
        return _decision(place, "skipped", reason + (f"; {obstacle}" if obstacle else ""))
    for node, index in absorbers:
        old = np.asarray(node.inputs[index].values)
        own_constant(node, index, old / place.along(factors), names)
    if not absorbers:
        _insert(graph, place, factors, names)
    for node in place.layers:
        if layer_weights(node) is not None:
            divide_inputs(node, 1 / factors, names)
        else:
            own_constant(node, 1, np.asarray(node.inputs[1].values) * factors[:, None], names)
    how = f"absorbed by {label(absorbers[-1][0])}" if absorbers else f"by a Mul, as {obstacle}"
    spread = f"channels divided by {factors.min():.3g} to {factors.max():.3g}, {how}"
    return _decision(place, "applied", f"{spread}; {gain_db:.1f} dB less noise expected")


def _absorbers(place: Place, count: int) -> tuple[list[tuple[gs.Node, int]], str]:
    """The constants that, divided, divide the tensor; or none, and the reason."""
    found: list[tuple[gs.Node, int]] = []
    tensor, readers = place.tensor, place.layers
    while True:
        other, node = _other_reader(tensor, readers), producer(tensor)
        if other:
            return [], f"{other} reads {tensor.name!r} too"
        if node is None:
            return [], f"{tensor.name!r} is an input of the model"
        slots = _slots(node, place.axis)
        shape = tensor.shape or ()
        if slots is None or len(shape) != len(place.tensor.shape) or shape[place.axis] != count:
            return [], f"{label(node)} ({node.op}) can't give out its channels divided"
        found += [(node, i) for i in slots]
        if node.op not in ("Add", "Relu"):
            return found, ""
        tensor = next(v for v in node.inputs if not isinstance(v, gs.Constant))
        readers = [node]


def _slots(node: gs.Node, axis: int) -> list[int] | None:
    """Which constants have to be divided for the node's output to be: for an Add and a Relu besides
    what it reads. None where that isn't possible."""
    slots = [i for i, v in enumerate(node.inputs) if constant(v) is not None]
    last = len(node.outputs[0].shape or ()) - 1
    if node.op == "LayerNormalization":
        whole = axis == last and int(node.attrs.get("axis", -1)) in (-1, last)
        return slots if whole and slots[:1] == [1] else None
    if node.op == "MatMul":
        return slots if axis == last and slots == [1] else None
    if node.op in ("Mul", "Add"):
        return slots if len(slots) == 1 else None
    return [] if node.op == "Relu" else None


def _other_reader(tensor: gs.Tensor, known: Sequence[gs.Node]) -> str:
    """Who else needs the tensor's values; empty for nobody."""
    if is_output(tensor):
        return "the model's caller"
    others = (n for n in tensor.outputs if n.op != "Shape" and not any(n is k for k in known))
    return next((label(n) for n in others), "")


def _insert(graph: gs.Graph, place: Place, factors: np.ndarray, names: Names) -> None:
    """One Mul by 1 / factors between the tensor and its layers."""
    name = names.fresh(f"{place.tensor.name}/smoothed")
    inverse = place.along(1 / factors).astype(np.float32)
    scale = gs.Constant(names.fresh(f"{name}/factors"), inverse)
    made = gs.Variable(name, place.tensor.dtype, place.tensor.shape)
    graph.nodes.append(gs.Node("Mul", f"{name}/Mul", {}, [place.tensor, scale], [made]))
    for node in place.layers:
        node.inputs[0] = made


def _decision(place: Place, outcome: Literal["applied", "skipped"], reason: str) -> Decision:
    return Decision("equalize", "smooth_quant", outcome, place.tensor.name, reason)
