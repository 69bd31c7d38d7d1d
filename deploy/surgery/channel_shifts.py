"""Which constants may be added to the channels of a tensor, because layers around take them back.

A convolution stores y + d instead of y by adding d to its bias; a layer that reads y + d subtracts
W d from its own. Between them only what carries a constant through unchanged: pooling, what moves
channels, and Adds, where the constants of both sides add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.channel_axis import flattened, keeps_rank, read_by_bodies, starts_shuffle
from deploy.surgery.channel_layers import (
    STANDARD,
    Layer,
    Names,
    absorbs_shift,
    add_to_bias,
    layer_weights,
    pads_zeros,
    taken_back,
    takes_bias,
)
from deploy.surgery.channel_scales import clip_bounds
from deploy.surgery.channels import (
    channel_count,
    moved_channels,
    moved_inputs,
    only_pixels_reduced,
)
from deploy.surgery.graph import is_output, label, producer

_CARRY = ("MaxPool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Dropout", "AveragePool")


@dataclass
class ChannelShifts:
    """One atom per output channel of a layer: the constant added there.

    of: per tensor name, the atoms that add up in each channel, a list of int64[C]. pinned: why an
    atom stays 0, by number. makers: the layers (and activations) that add atoms; readers: the
    layers that can take them back. inputs: the model's own, by name, where they have atoms.
    """

    count: int
    of: dict[str, list[np.ndarray]]
    pinned: dict[int, str]
    makers: list[Layer]
    readers: list[gs.Node]
    inputs: dict[str, np.ndarray] = field(default_factory=dict)

    def seen(self, measured: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """float64[2, atoms]: low and high of everything that carries one atom alone."""
        reach = np.array([[np.inf], [-np.inf]]).repeat(self.count, axis=1)
        for name, (low, high) in measured.items():
            if len(self.of[name]) == 1:
                np.minimum.at(reach[0], self.of[name][0], low)
                np.maximum.at(reach[1], self.of[name][0], high)
        return reach

    def total(self, name: str, shifts: np.ndarray) -> np.ndarray:
        """float64[C]: what a tensor carries when atom a has shifts[a]."""
        return np.asarray(np.sum([shifts[atoms] for atoms in self.of[name]], axis=0))

    def totals(self, shifts: np.ndarray) -> dict[str, np.ndarray]:
        """float64[C] for every tensor that changes."""
        found = {name: self.total(name, shifts) for name in self.of}
        return {name: total for name, total in found.items() if np.any(total)}

    @property
    def free(self) -> list[Layer]:
        """The makers none of whose channels are pinned."""
        return [maker for maker in self.makers if self.is_free(maker.slots)]

    def is_free(self, atoms: np.ndarray) -> bool:
        """Whether none of these atoms is pinned."""
        return not any(atom in self.pinned for atom in atoms.tolist())

    def take_back(self, shifts: np.ndarray, names: Names) -> None:
        """Let every reader subtract what its input carries."""
        for reader in self.readers:
            name = reader.inputs[0].name
            total = self.total(name, shifts) if name in self.of else np.zeros(1)
            if np.any(total):
                add_to_bias(reader, -taken_back(reader, total), names)


def channel_shifts(
    graph: gs.Graph, *, activations: bool = False, padded: bool = False
) -> ChannelShifts:
    """The atoms of a toposorted float graph whose shapes are inferred.

    activations: the outputs of ReLU and Clip get atoms too; their nodes are then makers as well.
    padded: so do the model's float inputs, and layers that pad with zeros count as readers, for a
    caller who lets them read a map padded with what those zeros became.
    """
    found = _Explorer(activations, padded)
    for tensor in graph.inputs if padded else ():
        found.begin(tensor)
    for node in graph.nodes:
        found.visit(node)
    found.pin(graph.outputs, "an output of the model")
    return ChannelShifts(
        found.count, found.of, found.pinned, found.makers, found.readers, found.inputs
    )


def quantized_places(graph: gs.Graph, found: ChannelShifts) -> list[str]:
    """Tensors that carry one layer's atoms alone and are read where INT8 may stand.

    What is centred is what layers and Adds hold, not what a pool in front of them reads.
    """
    return [n for n in int8_places(graph) if len(found.of.get(n, ())) == 1]


def int8_places(graph: gs.Graph) -> list[str]:
    """Tensors of known channels that are read by layers, Adds and Concats."""
    read: list[gs.Tensor] = []
    for node in graph.nodes:
        if layer_weights(node) is not None:
            read.append(node.inputs[0])
        elif node.op in ("Add", "Concat"):
            read += [v for v in node.inputs if not isinstance(v, gs.Constant)]
    return list(dict.fromkeys(v.name for v in read if channel_count(v) is not None))


@dataclass
class _Explorer:
    activations: bool = False
    padded: bool = False
    count: int = 0
    of: dict[str, list[np.ndarray]] = field(default_factory=dict)
    pinned: dict[int, str] = field(default_factory=dict)
    makers: list[Layer] = field(default_factory=list)
    readers: list[gs.Node] = field(default_factory=list)
    inputs: dict[str, np.ndarray] = field(default_factory=dict)

    def visit(self, node: gs.Node) -> None:
        self.pin(read_by_bodies(node), f"read inside {label(node)} ({node.op})")
        if node.domain in STANDARD and (
            starts_shuffle(node) or any(rule(self, node) for rule in _RULES)
        ):
            return
        self.pin(node.inputs, f"{label(node)} ({node.op}) doesn't carry a constant through")

    def make(self, node: gs.Node, count: int) -> None:
        """A new atom for every channel this node makes."""
        self.makers.append(Layer(node, self._fresh(node.outputs[0].name, count)))

    def begin(self, tensor: gs.Tensor) -> None:
        """A new atom for every channel of an input of the model."""
        count = channel_count(tensor)
        if count is not None and tensor.dtype == np.float32:
            self.inputs[tensor.name] = self._fresh(tensor.name, count)

    def _fresh(self, name: str, count: int) -> np.ndarray:
        atoms = np.arange(self.count, self.count + count)
        self.count += count
        self.of[name] = [atoms]
        return atoms

    def pin(self, tensors: Iterable[gs.Tensor], reason: str) -> None:
        for tensor in tensors:
            for atoms in self.of.get(tensor.name, ()):
                for atom in atoms.tolist():
                    self.pinned.setdefault(atom, reason)


def _layer(found: _Explorer, node: gs.Node) -> bool:
    if layer_weights(node) is None:
        return False
    if absorbs_shift(node) or (found.padded and pads_zeros(node)):
        found.readers.append(node)
    else:
        found.pin(node.inputs[:1], f"{label(node)} pads with zeros, or takes no bias")
    count = channel_count(node.outputs[0])
    if takes_bias(node) and count is not None and count > 0:
        found.make(node, count)
    return True


def _activates(found: _Explorer, node: gs.Node) -> bool:
    """A ReLU or Clip right behind a layer with a bias, read by nobody else."""
    if not found.activations or node.op not in ("Relu", "Clip"):
        return False
    maker, count = producer(node.inputs[0]), channel_count(node.outputs[0])
    alone = len(node.inputs[0].outputs) == 1 and not is_output(node.inputs[0])
    known = node.op == "Relu" or clip_bounds(node) is not None
    if maker is None or count is None or not (alone and known and takes_bias(maker)):
        return False
    found.pin(node.inputs[:1], f"{label(node)} ({node.op}) doesn't carry a constant through")
    found.make(node, count)
    return True


def _carries(found: _Explorer, node: gs.Node) -> bool:
    known = found.of.get(node.inputs[0].name) if node.inputs else None
    if known is None or channel_count(node.outputs[0]) != len(known[0]):
        return False
    if node.op in ("ReduceMean", "ReduceMax", "ReduceMin"):
        carries = only_pixels_reduced(node)
    elif node.op == "AveragePool":
        carries = not _counts_padding(node)
    else:
        carries = node.op in _CARRY
    if carries:
        found.of[node.outputs[0].name] = known
    return carries


def _counts_padding(node: gs.Node) -> bool:
    """Whether an average may run over zeros from outside the map."""
    pads = any(node.attrs.get("pads", ())) or bool(node.attrs.get("ceil_mode", 0))
    explicit = node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return bool(node.attrs.get("count_include_pad", 0)) and (pads or not explicit)


def _adds(found: _Explorer, node: gs.Node) -> bool:
    """Of tensors, and of constants, which change nothing."""
    if node.op != "Add" or not keeps_rank(node):
        return False
    data = [v for v in node.inputs if not isinstance(v, gs.Constant)]
    count = channel_count(node.outputs[0])
    if count is None or any(channel_count(v) != count for v in data):
        return False
    terms = [atoms for v in data for atoms in found.of.get(v.name, [])]
    if terms:
        found.of[node.outputs[0].name] = terms
    return bool(terms)


def _moves(found: _Explorer, node: gs.Node) -> bool:
    moved = moved_channels(node)
    if moved is None:
        return False
    known = [found.of.get(v.name, []) for v in moved_inputs(node)]
    # several terms would have to be laid side by side: they could differ in number
    if not known[0] or (len(known) > 1 and any(len(terms) != 1 for terms in known)):
        return False
    laid = [np.concatenate(atoms) for atoms in zip(*known, strict=True)]
    for out, channels in zip(node.outputs, moved, strict=True):
        found.of[out.name] = [atoms[channels] for atoms in laid]
    return True


def _flattens(found: _Explorer, node: gs.Node) -> bool:
    known = found.of.get(node.inputs[0].name) if node.inputs else None
    repeats = flattened(node)
    if known is None or repeats is None:
        return False
    found.of[node.outputs[0].name] = [np.repeat(atoms, repeats) for atoms in known]
    return True


_RULES: Sequence[Callable[[_Explorer, gs.Node], bool]] = (
    _moves,
    _layer,
    _activates,
    _carries,
    _adds,
    _flattens,
)
