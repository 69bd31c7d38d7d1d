"""Candidates come from the target's file and the recipe, the preferred one first."""

from __future__ import annotations

from deploy.int8.variants import candidates, kept_by
from deploy.placement import NOTHING, Exclude
from deploy.recipe import Recipe
from deploy.target import Target


def test_int8_before_float() -> None:
    found = candidates(Target.load("cpu"), Recipe(), NOTHING, "int8")
    kinds = [c.precision for c in found]
    assert found[0].name == "all"
    assert kinds == sorted(kinds, key=lambda p: p != "int8")
    assert {"fp32", "bf16"} <= set(kinds)
    assert len({c.name for c in found}) == len(found)


def test_a_variant_says_what_computes_the_rest() -> None:
    cpu = Target.load("cpu")
    named = {c.name: c for c in candidates(cpu, Recipe(), NOTHING, "int8")}
    assert cpu.engine.inference_precision["int8"] == "f32"
    rest = named["depthwise-bf16"]
    assert rest.target.engine.inference_precision["int8"] == "bf16"
    assert set(rest.exclude.kinds) == {"Conv:depthwise"}
    assert "bf16" in rest.description
    assert named["all"].target.engine == cpu.engine


def test_a_target_without_variants_has_its_placement() -> None:
    found = candidates(Target.load("intel-vnni"), Recipe(), NOTHING, "int8")
    assert [c.name for c in found if c.precision == "int8"] == ["all"]


def test_what_the_user_keeps_is_kept_in_every_int8_candidate() -> None:
    recipe = Recipe(keep_float=("Add", "Conv:depthwise", "/stage1/conv"))
    assert kept_by(recipe) == Exclude(
        layers={"/stage1/conv": "asked for by --keep-float"},
        kinds=dict.fromkeys(("Add", "Conv:depthwise"), "asked for by --keep-float"),
    )
    for found in candidates(Target.load("cpu"), recipe, NOTHING, "int8"):
        if found.precision == "int8":
            assert {"Add", "Conv:depthwise"} <= set(found.exclude.kinds)
            assert "/stage1/conv" in found.exclude.layers
        else:
            assert found.exclude == NOTHING
