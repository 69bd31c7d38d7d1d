"""What is known of a network that may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibrators.samples import Sample
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.ladder.tensors import Values
from deploy.recipe import Recipe

_NAMED = 4


@dataclass(frozen=True)
class Evidence:
    """One network on some samples. tensors, outputs: per sample, what its inner tensors and outputs
    hold. scores: the output with class scores. flags: what the CPU can do."""

    model: Model
    recipe: Recipe
    samples: Sequence[Sample]
    tensors: Sequence[Values]
    outputs: Sequence[Values]
    scores: str | None = None
    ranges: Ranges | None = None
    quantized: Model | None = None
    engine: Engine | None = None
    precision: str = "fp32"
    flags: frozenset[str] = frozenset()


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
