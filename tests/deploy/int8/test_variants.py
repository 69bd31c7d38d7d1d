"""Candidates come from the target's file and the recipe, the preferred one first."""

from __future__ import annotations

from deploy.int8.variants import candidates, float_candidates, kept_by
from deploy.nvidia.dialect import on_its_gpu, simulated
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


class TestKernelsOfOurs:
    """On the device itself each is measured with them and without."""

    def on_its_gpu(self) -> Target:
        return on_its_gpu(Target.load("orin"))

    def test_behind_those_without(self) -> None:
        found = candidates(self.on_its_gpu(), Recipe(), NOTHING, "int8")
        assert [c.name for c in found] == [
            *("all", "sums-float", "all with plugins", "sums-float with plugins"),
            *("fp32", "fp16", "fp16 with plugins"),
        ]
        named = {c.name: c for c in found}
        for name, one in named.items():
            ours = [f for f in one.target.engine_fusions if f.startswith("plugin_")]
            assert bool(ours) == bool(one.plain) == name.endswith("with plugins")
            assert one.plain in ("", name.removesuffix(" with plugins"))
        kept = named["sums-float with plugins"]
        assert (kept.exclude, kept.precision) == (named["sums-float"].exclude, "int8")

    def test_none_where_nobody_can_measure_them(self) -> None:
        for target in (Target.load("orin"), simulated(Target.load("orin")), Target.load("cpu")):
            found = candidates(target, Recipe(), NOTHING, "int8")
            assert not any(c.plain for c in found)
            assert not any(c.plain for c in float_candidates(target, "fp32"))

    def test_a_float_build_has_them_too(self) -> None:
        found = float_candidates(self.on_its_gpu(), "fp16")
        assert [(c.name, c.precision) for c in found] == [
            ("fp16", "fp16"),
            ("fp16 with plugins", "fp16"),
        ]


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
