"""The engines that could be shipped where 8 bits were asked for, the preferred one first."""

from __future__ import annotations

from dataclasses import dataclass

import onnx.defs

from deploy.layer_kinds import KINDS
from deploy.placement import Exclude
from deploy.precisions import compared_precisions, in_words
from deploy.recipe import Recipe
from deploy.target import Precision, Target, Variant


@dataclass(frozen=True)
class Candidate:
    """An engine to try: what stays float in it, and with which settings it is compiled."""

    name: str
    description: str
    target: Target
    precision: Precision
    exclude: Exclude


def candidates(
    target: Target, recipe: Recipe, keep: Exclude, precision: Precision
) -> list[Candidate]:
    """The target's variants in 8 bits, then its float engines, which only win if clearly faster.

    keep: what stays float in every one of them.
    """
    wanted = keep.also(kept_by(recipe))
    found = [_quantized(target, variant, wanted, precision) for variant in target.variants]
    floats = compared_precisions(target, precision)
    return found + [
        Candidate(p, f"no {in_words(precision)}: everything in {p}", target, p, Exclude())
        for p in floats
    ]


def kept_by(recipe: Recipe) -> Exclude:
    """What the user wants in float: names of layers, or kinds of them."""
    reason = "asked for by --keep-float"
    kinds = {name: reason for name in recipe.keep_float if _is_kind(name)}
    layers = {name: reason for name in recipe.keep_float if name not in kinds}
    return Exclude(layers=layers, kinds=kinds)


def _quantized(target: Target, variant: Variant, keep: Exclude, precision: Precision) -> Candidate:
    reason = f"placement {variant.name!r}: {variant.title}"
    own = Exclude(kinds=dict.fromkeys(variant.keep_float, reason))
    described = variant.title
    if variant.rest:
        settings = target.engine.inference_precision | {precision: variant.rest}
        engine = target.engine.model_copy(update={"inference_precision": settings})
        target = target.model_copy(update={"engine": engine})
        described += f"; what stays float is computed in {variant.rest}"
    return Candidate(variant.name, described, target, precision, keep.also(own))


def _is_kind(name: str) -> bool:
    return name in KINDS or onnx.defs.has(name)
