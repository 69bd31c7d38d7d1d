"""What padded convolutions and the model's inputs lose to a symmetric scale, where it is much.

    conv -> ReLU -> padded conv   =>   (conv - m) -> Clip(-m) -> Pad(-m) -> (unpadded conv + W m)
    input -> padded conv          =>   (input - m) -> Pad(-m) -> (unpadded conv + W m)

Values that lie on one side of 0 use half of the integers of a symmetric scale, and
`activation_centering` can't move what is padded with zeros: they would have to move along. Here
they do, in a Pad of its own, which padded the map inside the convolution before. m is a multiple of
the scale, so that 0, which is most of many maps and all that is padded, stays exact.

A Pad may cost another pass over the map, so it is written only where measurement says that it wins
half a decibel at the outputs: the noise of that tensor alone against that of all, on a few samples.
TensorRT-RTX 1.7.1 (SM89) computes it, and an input's Add, inside the kernel that requantizes the
map: MobileNetV2 has 107 kernels with it and without, and moves 0.1 % more bytes. TensorRT 8 and 10
weren't seen. Not for implicit quantization (a DLA, Xavier): nobody saw what it makes of such a Pad.

SQNR of the outputs, symmetric int8, one half of the calibration samples judged on the other and the
other way round: mobilenetv2 20.9 and 20.9 -> 21.8 and 21.7 dB (its first ReLU6), dscnn_kws 24.8 and
25.2 -> 33.4 and 33.7 (its input). resnet20 and shufflenetv1 stay as they are; of nine networks from
elsewhere one changes: silero_vad, 18.2 -> 18.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from calibrators.ranges import Affine, Range, activation_params
from deploy.artifacts.model import Decision
from deploy.errors import CalibrationError
from deploy.observation.evidence import Evidence
from deploy.observation.observe import ChannelRange
from deploy.quantizable import LAYERS
from deploy.sensitivity.rounded_inputs import noise_shares
from deploy.surgery.channel_layers import Names, pads_zeros
from deploy.surgery.channel_shifts import ChannelShifts, channel_shifts, int8_places
from deploy.surgery.graph import infer, label, to_model
from deploy.surgery.shifted_values import pad_in_front, shift_activation, shift_input

# what the outputs have to gain in dB; less would not pay for a Pad, and is hardly measurable
_GAIN_DB = 0.5
_MEASURED_ON = 16
_TOP = 127


@dataclass(frozen=True)
class _Candidate:
    """A value that could be moved: what a node makes, or an input of the model.

    places: what layers read of it. shift: a multiple of the scale it then has. left: its noise
    power afterwards, over that now.
    """

    tensor: gs.Tensor
    node: gs.Node | None
    slots: np.ndarray
    places: tuple[str, ...]
    shift: float
    left: float

    def gain_db(self, share: float) -> float:
        """What the outputs gain when it brings this share of their noise."""
        return float(-10 * np.log10(1 - min(share, 1.0) * (1 - self.left)))


def padded_centering(graph: gs.Graph, evidence: Evidence) -> list[Decision]:
    """Centre the values whose noise is worth a Pad; a Decision for each that was measured.

    Tells the evidence nothing: the graph has tensors behind it that weren't measured.
    """
    if not evidence.symmetric:
        return []
    found = channel_shifts(graph, activations=True, padded=True)
    ranges = evidence.ranges(_layer_inputs(graph))
    listed = list(_candidates(graph, found, ranges))
    if not listed:
        return []
    params = {name: _params(seen) for name, seen in ranges.items()}
    model = to_model(graph, evidence.model, ())
    described = model.derive(infer(model.proto), ())
    groups = {c.tensor.name: c.places for c in listed}
    try:
        shares = noise_shares(described, params, groups, evidence.some(_MEASURED_ON))
    except CalibrationError as error:
        # such as integer outputs, or infinite ones: the build goes on without
        reason = f"the noise of single tensors can't be measured: {error}"
        return [_told(c, "skipped", reason) for c in listed]
    gains = {name: c.gain_db(shares[name]) for name, c in zip(groups, listed, strict=True)}
    decisions = [_decision(c, shares[c.tensor.name], gains[c.tensor.name]) for c in listed]
    _move(graph, found, [c for c in listed if gains[c.tensor.name] >= _GAIN_DB])
    return decisions


def _layer_inputs(graph: gs.Graph) -> list[str]:
    """Of all layers, also those whose input can't move: they share in the noise."""
    read = {node.inputs[0].name: node.inputs[0] for node in graph.nodes if node.op in LAYERS}
    listed = [name for name in int8_places(graph) if name in read]
    return [name for name in listed if read[name].dtype == np.float32]


def _candidates(
    graph: gs.Graph, found: ChannelShifts, ranges: Mapping[str, ChannelRange]
) -> Iterator[_Candidate]:
    """Activations and inputs that can move and whose noise would fall by what is asked for."""
    makers = [(m.node.outputs[0], m.node, m.slots) for m in found.makers]
    makers = [m for m in makers if m[1].op in ("Relu", "Clip")]
    makers += [(t, None, found.inputs[t.name]) for t in graph.inputs if t.name in found.inputs]
    for tensor, node, slots in makers:
        places = tuple(n for n in ranges if _carries_alone(found, n, slots))
        if not places or not found.is_free(slots) or not _one_value(found, slots):
            continue
        low = min(float(ranges[n].low.min()) for n in places)
        high = max(float(ranges[n].high.max()) for n in places)
        shift, left = _centred(low, high)
        candidate = _Candidate(tensor, node, slots, places, shift, left)
        if candidate.gain_db(1.0) >= _GAIN_DB:
            yield candidate


def _one_value(found: ChannelShifts, slots: np.ndarray) -> bool:
    """Whether every padded map that would move does so as a whole, by the constant of these."""
    for reader in found.readers:
        name = reader.inputs[0].name
        meets = any(np.isin(atoms, slots).any() for atoms in found.of.get(name, ()))
        if pads_zeros(reader) and meets and not _carries_alone(found, name, slots):
            return False
    return True


def _carries_alone(found: ChannelShifts, name: str, slots: np.ndarray) -> bool:
    carried = found.of.get(name, [])
    return len(carried) == 1 and bool(np.isin(carried[0], slots).all())


def _centred(low: float, high: float) -> tuple[float, float]:
    """The shift that brings a range around zero and keeps 0 on the grid; noise power left."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 0.0, 1.0
    steps = -round(_TOP * (low + high) / (high - low))
    scale = max(
        high / (_TOP - steps) if high > 0 else 0.0, -low / (_TOP + steps) if low < 0 else 0.0
    )
    return float(np.float32(steps * scale)), (_TOP * scale / max(-low, high)) ** 2


def _params(seen: ChannelRange) -> Affine:
    reach = Range(float(seen.low.min()), float(seen.high.max()))
    return activation_params(reach, "int8", symmetric=True)


def _move(graph: gs.Graph, found: ChannelShifts, chosen: Sequence[_Candidate]) -> None:
    names, shifts = Names(graph), np.zeros(found.count)
    for candidate in chosen:
        shifts[candidate.slots] = candidate.shift
    found.take_back(shifts, names)
    for reader in found.readers:
        if reader.inputs[0].name in found.of and pads_zeros(reader):
            total = found.total(reader.inputs[0].name, shifts)
            if np.any(total):
                pad_in_front(graph, reader, float(total[0]), names)
    for candidate in chosen:
        if candidate.node is not None:
            shift_activation(candidate.node, candidate.shift, names)
        else:
            shift_input(graph, candidate.tensor, candidate.shift, names)


def _decision(candidate: _Candidate, share: float, gain_db: float) -> Decision:
    chosen = gain_db >= _GAIN_DB
    reason = f"{share:.1%} of the noise; moved by {candidate.shift:.4g} it wins {gain_db:.2f} dB"
    if not chosen:
        reason += f" of the {_GAIN_DB:g} that a Pad is worth"
    return _told(candidate, "applied" if chosen else "skipped", reason)


def _told(candidate: _Candidate, outcome: Literal["applied", "skipped"], reason: str) -> Decision:
    node = candidate.tensor.outputs[0] if candidate.node is None else candidate.node
    return Decision("equalize", "padded_centering", outcome, label(node), reason)
