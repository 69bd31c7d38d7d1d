"""Where Q/DQ pairs go: what a placement (one file per vendor) decides, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.layer_kinds import first_and_last, kinds
from deploy.surgery.graph import label


@dataclass(frozen=True)
class ActivationQuant:
    """Input `index` of `node` reads its value through Q/DQ; one pair serves all its readers.

    owner: the layer that runs in integers because of it, where that isn't `node` itself (a layer
    whose result has to be quantized owns the Q/DQ in front of every reader). only_with: a
    tensor that has to be quantized as well, for another layer's sake, or this is worth nothing.
    """

    node: gs.Node
    index: int
    reason: str
    owner: gs.Node | None = None
    only_with: str = ""

    @property
    def layer(self) -> gs.Node:
        """The layer it is placed for."""
        return self.node if self.owner is None else self.owner

    @property
    def tensor(self) -> gs.Tensor:
        """The value that is quantized (before any Q/DQ is written)."""
        return self.node.inputs[self.index]


@dataclass(frozen=True)
class WeightQuant:
    """Weight input `index` of `node` is stored as integers, one scale per channel of `axis`
    (None: one for the whole tensor)."""

    node: gs.Node
    index: int
    axis: int | None


@dataclass(frozen=True)
class SharedScale:
    """Tensors, by name, that get one scale: their ranges are united before it is chosen."""

    tensors: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Placement:
    """Everything quantized, and a Decision for every layer that stays float, with its reason.

    shared: groups of one scale each; groups that have a tensor in common become one.
    """

    activations: tuple[ActivationQuant, ...]
    weights: tuple[WeightQuant, ...]
    skipped: tuple[Decision, ...]
    shared: tuple[SharedScale, ...] = ()

    @property
    def layers(self) -> tuple[gs.Node, ...]:
        """What runs in integers, each layer once, in the order it was placed."""
        placed = [a.layer for a in self.activations] + [w.node for w in self.weights]
        return tuple({id(node): node for node in placed}.values())


@dataclass(frozen=True)
class Exclude:
    """What stays in float although the placement would quantize it; each name has its reason.

    layers: by node label (`deploy.surgery.graph.label`). tensors: every layer whose Q/DQ, or whose
    stored weight, is around the tensor. kinds: as `deploy.layer_kinds` names them, such as "Add",
    "Conv:depthwise", "first".
    """

    layers: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    def also(self, other: Exclude) -> Exclude:
        """Both together; a name of both keeps its first reason."""
        mine = {f.name: {**getattr(other, f.name), **getattr(self, f.name)} for f in fields(self)}
        return Exclude(**mine)


NOTHING = Exclude()


def one_scale(groups: Iterable[SharedScale]) -> list[SharedScale]:
    """The groups, those with a tensor in common made one; order and reason are the first's."""
    found: list[SharedScale] = []
    of: dict[str, int] = {}
    for group in groups:
        met = sorted({of[name] for name in group.tensors if name in of})
        parts = [found[i] for i in met] + [group]
        names = tuple(dict.fromkeys(name for part in parts for name in part.tensors))
        place = met[0] if met else len(found)
        merged = SharedScale(names, parts[0].reason)
        found[place:] = [merged, *(g for g in found[place + 1 :] if g not in parts)]
        of = {name: i for i, g in enumerate(found) for name in g.tensors}
    return found


def without(placement: Placement, exclude: Exclude) -> Placement:
    """The placement with everything that is excluded left in float, each layer with its reason.

    A layer goes with all its inputs, results and weights: half a layer in integers costs time and
    gains nothing. Scales are shared among what remains.
    """
    dropped = _dropped(placement, exclude)
    if not dropped:
        return placement
    _drop_dependents(placement, dropped)
    activations = tuple(a for a in placement.activations if id(a.layer) not in dropped)
    weights = tuple(w for w in placement.weights if id(w.node) not in dropped)
    if not weights:  # sums and pools are integers for the sake of such layers
        return Placement((), (), (*placement.skipped, *dropped.values()))
    left = {a.tensor.name for a in activations}
    kept = ([t for t in group.tensors if t in left] for group in placement.shared)
    shared = (
        SharedScale(tuple(names), group.reason)
        for names, group in zip(kept, placement.shared, strict=True)
        if len(names) > 1
    )
    return Placement(activations, weights, (*placement.skipped, *dropped.values()), tuple(shared))


def _dropped(placement: Placement, exclude: Exclude) -> dict[int, Decision]:
    """Per id of a layer that is excluded: the Decision that says why."""
    ends = first_and_last(w.node for w in placement.weights)
    touched: dict[int, list[str]] = {id(node): [] for node in placement.layers}
    for a in placement.activations:
        touched[id(a.layer)].append(a.tensor.name)
    for w in placement.weights:
        touched[id(w.node)].append(w.node.inputs[w.index].name)
    found = {}
    for node in placement.layers:
        wanted = (
            [exclude.layers.get(label(node))]
            + [exclude.kinds.get(kind) for kind in [*kinds(node), *ends.get(id(node), ())]]
            + [exclude.tensors.get(name) for name in touched[id(node)]]
        )
        reason = next((r for r in wanted if r is not None), None)
        if reason is not None:
            found[id(node)] = Decision("quantize", "exclude", "skipped", label(node), reason)
    return found


def _drop_dependents(placement: Placement, dropped: dict[int, Decision]) -> None:
    """Drop also what is only worth it beside something that has been dropped."""
    dependent = [a for a in placement.activations if a.only_with]
    for _ in dependent:  # one may depend on another
        left = {a.tensor.name for a in placement.activations if id(a.layer) not in dropped}
        for a in dependent:
            if a.only_with not in left and id(a.layer) not in dropped:
                reason = f"{a.only_with!r} stays float, and without it INT8 here gains nothing"
                subject = label(a.layer)
                dropped[id(a.layer)] = Decision("quantize", "exclude", "skipped", subject, reason)
