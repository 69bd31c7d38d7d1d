"""Flags that changed nothing: a build that silently ignores what was asked can't be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnx import TensorProto

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.int8.variants import kept_by
from deploy.layer_kinds import ENDS, kinds
from deploy.recipe import Recipe
from deploy.surgery.graph import to_graph
from deploy.target import QUANTIZED, Precision, Target

# what only quantizing activations reads
_OF_8_BITS = ("keep_float", "calibrator", "ranges", "effort", "search_s")
_FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4)


def named_fusions(target: Target) -> set[str]:
    """Every fusion that a build for the target may run."""
    late = {*target.engine_fusions, *target.plugin_fusions}
    return {*target.fusions, *target.quantized_fusions} | late


def unnamed_fusions(recipe: Recipe, target: Target) -> Iterator[str]:
    """A sentence per --fusion-path that the target doesn't name."""
    named = named_fusions(target)
    for name in (Path(file).stem for file in recipe.fusion_path):
        if name not in named:
            yield (
                f"--fusion-path: target {target.name} doesn't name {name!r}, so it never ran; "
                f'extend the target in a file of yours: extends = "{target.name}", fusions = [...]'
            )


def unread(recipe: Recipe, precision: Precision) -> Iterator[str]:
    """A sentence for the flags that nothing reads in a build of this precision."""
    if precision in QUANTIZED:
        return
    usual = Recipe()
    given = [name for name in _OF_8_BITS if getattr(recipe, name) != getattr(usual, name)]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        yield (
            f"{flags}: only INT8 and FP8 activations are calibrated and placed, so in this build "
            "nothing reads that"
        )


def nothing_narrow(recipe: Recipe, compressed: Model) -> Iterator[str]:
    """A sentence where 4-bit weights were asked for and none is there."""
    if not recipe.int4_weights:
        return
    if not any(w.data_type in _FOUR_BITS for w in compressed.proto.graph.initializer):
        yield (
            "--int4-weights: no weight took 4 bits, so what is stored as integers has 8; the "
            "report's weights say why"
        )


def no_effect(recipe: Recipe, fused: Model) -> Iterator[str]:
    """A sentence per --keep-float kind and --approximate activation that the graph doesn't have."""
    if not (recipe.keep_float or recipe.approximate):
        return
    present = {kind for node in to_graph(fused).nodes for kind in kinds(node)} | set(ENDS)
    for kind in kept_by(recipe).kinds:
        if kind not in present:
            yield f"--keep-float {kind}: the graph has no such layer, so nothing stays float for it"
    for name in recipe.approximate:
        made = fuse(fused, (f"approximate_{name}",))
        if not any(decision.outcome == "applied" for decision in made.decisions):
            yield f"--approximate {name}: the graph has none, so the engine is the same without it"
