"""The engines that could be shipped where INT8 was asked for, the preferred one first."""

from __future__ import annotations

from dataclasses import dataclass

import onnx.defs

from deploy.layer_kinds import KINDS
from deploy.placement import Exclude
from deploy.recipe import Recipe
from deploy.target import Precision, Target, Variant, compared_precisions


@dataclass(frozen=True)
class Candidate:
    """An engine to try: what stays float in it, and with which settings it is compiled."""

    name: str
    description: str
    target: Target
    precision: Precision
    exclude: Exclude


def candidates(target: Target, recipe: Recipe, keep: Exclude) -> list[Candidate]:
    """The target's INT8 variants, then its float engines, which only win if clearly faster.

    keep: what stays float in every one of them.
    """
    wanted = keep.also(kept_by(recipe))
    found = [_int8(target, variant, wanted) for variant in target.variants]
    floats = compared_precisions(target, "int8")
    return found + [
        Candidate(p, f"no INT8: everything in {p}", target, p, Exclude()) for p in floats
    ]


def kept_by(recipe: Recipe) -> Exclude:
    """What the user wants in float: names of layers, or kinds of them."""
    reason = "asked for by --keep-float"
    kinds = {name: reason for name in recipe.keep_float if _is_kind(name)}
    layers = {name: reason for name in recipe.keep_float if name not in kinds}
    return Exclude(layers=layers, kinds=kinds)


def _int8(target: Target, variant: Variant, keep: Exclude) -> Candidate:
    reason = f"placement {variant.name!r}: {variant.title}"
    own = Exclude(kinds=dict.fromkeys(variant.keep_float, reason))
    described = variant.title
    if variant.rest:
        settings = target.engine.inference_precision | {"int8": variant.rest}
        engine = target.engine.model_copy(update={"inference_precision": settings})
        target = target.model_copy(update={"engine": engine})
        described += f"; what stays float is computed in {variant.rest}"
    return Candidate(variant.name, described, target, "int8", keep.also(own))


def _is_kind(name: str) -> bool:
    return name in KINDS or onnx.defs.has(name)
