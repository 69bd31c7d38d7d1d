"""The engines that could be shipped, the preferred one first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx.defs

from deploy.layer_kinds import KINDS
from deploy.placement import Exclude
from deploy.precisions import compared_precisions, in_words
from deploy.recipe import Recipe
from deploy.target import Precision, Target, Variant

WITH_PLUGINS = " with plugins"


@dataclass(frozen=True)
class Candidate:
    """An engine to try: what stays float in it, and with which settings it is compiled.

    plain: the name of the same one without kernels of ours, where it has any.
    """

    name: str
    description: str
    target: Target
    precision: Precision
    exclude: Exclude
    plain: str = ""


def candidates(
    target: Target, recipe: Recipe, keep: Exclude, precision: Precision
) -> list[Candidate]:
    """The target's variants in 8 bits, then its float engines, which only win if clearly faster;
    those with kernels of ours behind those without.

    keep: what stays float in every one of them.
    """
    wanted = keep.also(kept_by(recipe))
    found = [_quantized(target, variant, wanted, precision) for variant in target.variants]
    floats = [
        Candidate(p, f"no {in_words(precision)}: everything in {p}", target, p, Exclude())
        for p in compared_precisions(target, precision)
    ]
    # float32 is there for the comparison: the last is the fastest float type
    return [*found, *with_plugins(found), *floats, *with_plugins(floats[-1:])]


def in_own_float(candidate: Candidate, target: Target, listed: Sequence[Candidate]) -> Candidate:
    """The same with what stays float in the target's own type instead of a narrower one; one of
    those listed where it is among them."""
    own = target.engine.inference_precision
    rest = candidate.target.engine.inference_precision.get(candidate.precision, "")
    if rest == own.get(candidate.precision, ""):
        return candidate
    engine = candidate.target.engine.model_copy(update={"inference_precision": own})
    exact = replace(
        candidate,
        name=f"{candidate.name} without {rest}",
        description=candidate.description.removesuffix(_told(rest)),
        target=candidate.target.model_copy(update={"engine": engine}),
    )
    same = (c for c in listed if _placed(c) == _placed(exact) and c.target == exact.target)
    return next(same, exact)


def _placed(candidate: Candidate) -> tuple[Precision, set[str]]:
    return candidate.precision, set(candidate.exclude.kinds)


def _told(rest: str) -> str:
    return f"; what stays float is computed in {rest}"


def float_candidates(target: Target, precision: Precision) -> list[Candidate]:
    """The float engine, and the one with kernels of ours."""
    plain = Candidate(precision, f"everything in {precision}", target, precision, Exclude())
    return [plain, *with_plugins([plain])]


def with_plugins(plain: Sequence[Candidate]) -> list[Candidate]:
    """Each with kernels of ours; none where this machine isn't the target, which would measure
    them."""
    return [
        replace(
            candidate,
            name=candidate.name + WITH_PLUGINS,
            description=f"{candidate.description}; with kernels of our own",
            target=_with_plugin_fusions(candidate.target),
            plain=candidate.name,
        )
        for candidate in plain
        if candidate.target.host and candidate.target.plugin_fusions
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
        described += _told(variant.rest)
    return Candidate(variant.name, described, target, precision, keep.also(own))


def _with_plugin_fusions(target: Target) -> Target:
    fusions = (*target.plugin_fusions, *target.engine_fusions)
    return target.model_copy(update={"engine_fusions": fusions, "plugin_fusions": ()})


def _is_kind(name: str) -> bool:
    return name in KINDS or onnx.defs.has(name)
