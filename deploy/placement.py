"""Where Q/DQ pairs go: what a placement (one file per vendor) decides, as data."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision


@dataclass(frozen=True)
class ActivationQuant:
    """Input `index` of `node` reads its value through Q/DQ; one pair serves all its readers."""

    node: gs.Node
    index: int
    reason: str


@dataclass(frozen=True)
class WeightQuant:
    """Weight input `index` of `node` is stored as integers, one scale per channel of `axis`
    (None: one for the whole tensor)."""

    node: gs.Node
    index: int
    axis: int | None


@dataclass(frozen=True)
class Placement:
    """Everything quantized, and a Decision for every layer that stays float, with its reason."""

    activations: tuple[ActivationQuant, ...]
    weights: tuple[WeightQuant, ...]
    skipped: tuple[Decision, ...]
