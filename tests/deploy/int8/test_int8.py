"""What an INT8 build ships: the first candidate that passes, with fewer and fewer INT8 layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_models import quantized, residual

from deploy.artifacts.model import Model
from deploy.artifacts.precision import LayerNoise
from deploy.int8.fastest import Int8
from deploy.int8.race import Entry, Race
from deploy.int8.variants import Candidate
from deploy.line import Built, Judged
from deploy.nvidia.dialect import on_its_gpu
from deploy.recipe import Recipe
from deploy.target import Target

NOISE = tuple(LayerNoise(f"layer{i}", "Conv", "t", -20.0 - 5 * i, -15.0, 8) for i in range(6))


class Stages:
    """Int8Stages with made-up times and gates. passing: whether a candidate's engine passes."""

    def __init__(
        self, order: Sequence[str], passing: Any, target: Target | None = None, **recipe: Any
    ) -> None:
        self.recipe = Recipe(**recipe)
        self.target = target or Target.load("cpu")
        self.precision = "int8"
        self.order = tuple(order)
        self.passing = passing
        self.fused = residual()
        self.equalized = residual()
        self.ranges = None
        self.calibrated = True
        self.noise = self.known_noise = NOISE
        self.asked: list[Candidate] = []
        self.races = 0
        self.later: tuple[str, ...] = ()

    def race(self, listed: Sequence[Candidate]) -> Race:
        self.races += 1
        names = [c.name for c in listed]
        if self.races > 1:
            order = (*self.later, *(n for n in names if n not in self.later))
            rows = [Entry(n, "", "int8", 3, 0, median_ms=1.0 + order.index(n)) for n in order]
            return Race(order, tuple(rows), True)
        ms = {name: 1.0 + 0.5 * i for i, name in enumerate(self.order)}
        rows = [
            Entry(
                *(c.name, c.description, c.precision, 3, 0, ms.get(c.name)),
                note="" if c.name in ms else "not built",
            )
            for c in listed
        ]
        return Race(self.order, tuple(rows), True)

    def uncorrected(self, name: str) -> Model | None:
        return quantized(self.fused)

    def judged(self, candidate: Candidate) -> Judged:
        self.asked.append(candidate)
        graph = quantized(self.fused) if candidate.precision == "int8" else self.fused
        passed = self.passing(candidate)
        report = SimpleNamespace(
            passed=passed,
            task=None,
            outputs=[SimpleNamespace(sqnr_db=30.0)],
            verdict=lambda: "drop is 3.00, needs 0.5",
        )
        built = Built(graph, candidate.target, candidate.precision, None)  # type: ignore[arg-type]
        return Judged(built, None, report, None)  # type: ignore[arg-type]


def ship(stages: Stages) -> Any:
    return Int8(stages).ship()  # type: ignore[arg-type]


def outcomes(shipped: Any) -> Mapping[str, str]:
    return {row.name: row.outcome for row in shipped.choice.tried}


def test_the_fastest_that_passes() -> None:
    shipped = ship(Stages(["all-bf16", "all", "bf16"], lambda c: True))
    assert shipped.choice.chosen == "all-bf16"
    assert shipped.choice.reason == "measured on this machine: 1.000 ms, 2.00x the speed of bf16"
    assert list(shipped.graphs) == ["equalized", "uncorrected", "quantized"]


@pytest.mark.parametrize("layers, said", [(3, ""), (5, ", with more layers in 8 bits")])
def test_an_equally_fast_one_is_named(layers: int, said: str) -> None:
    class Level(Stages):
        def race(self, listed: Sequence[Candidate]) -> Race:
            figures = {"excited-bf16": (3, 1.01), "all": (layers, 1.0), "bf16": (0, 2.0)}
            rows = [Entry(n, "", "int8" if k else n, k, 5, ms) for n, (k, ms) in figures.items()]
            return Race(tuple(figures), tuple(rows), True)

    reason = ship(Level([], lambda c: True)).choice.reason
    assert reason.endswith(f"the speed of bf16; all is as fast, within the noise{said}")


def test_a_faster_one_that_misses_a_gate_is_passed_over() -> None:
    shipped = ship(Stages(["all-bf16", "all", "bf16"], lambda c: c.name == "all"))
    assert shipped.choice.chosen == "all"
    assert outcomes(shipped)["all-bf16"] == "missed a gate: drop is 3.00, needs 0.5"


def test_a_faster_float_engine_is_shipped_and_says_so() -> None:
    shipped = ship(Stages(["bf16", "all"], lambda c: True))
    assert shipped.judged.built.precision == "bf16"
    assert "quantized" not in shipped.graphs
    assert shipped.choice.reason.startswith("no INT8 engine that passes is faster than bf16")


def test_layers_go_back_until_the_gate_holds() -> None:
    """Three noisy layers have to go: 1, 2 and 4 are tried, then 3."""
    stages = Stages(["all", "sums-float", "all-bf16"], lambda c: len(c.exclude.layers) >= 3)
    shipped = ship(stages)
    assert shipped.choice.chosen == "all, 3 layers back in float"
    assert "fewest layers" in shipped.choice.reason
    tried = [len(c.exclude.layers) for c in stages.asked if "back" in c.name]
    assert tried == [1, 2, 4, 3]
    assert shipped.choice.sensitivity == NOISE


def test_layers_go_back_to_the_exact_float_type() -> None:
    """bf16 loses by itself, so no number of layers back in it would do; it is tried at the end."""

    def passing(c: Candidate) -> bool:
        exact = c.target.engine.inference_precision["int8"] == "f32"
        return exact and len(c.exclude.layers) >= 2

    stages = Stages(["depthwise-bf16", "all-bf16", "depthwise-sums-bf16"], passing)
    shipped = ship(stages)
    name = "depthwise-bf16 without bf16, 2 layers back in float"
    assert shipped.choice.chosen == name
    tried = {c.name: c for c in stages.asked}
    assert set(tried[name].exclude.kinds) == {"Conv:depthwise"}
    assert outcomes(shipped)["depthwise-bf16, 2 layers back in float"].startswith("missed a gate")


def test_the_narrow_float_type_may_do_as_well() -> None:
    stages = Stages(
        ["all-bf16", "depthwise-bf16", "depthwise-sums-bf16"],
        lambda c: len(c.exclude.layers) >= 2,
    )
    stages.later = ("all-bf16, 2 layers back in float",)
    shipped = ship(stages)
    assert shipped.choice.chosen == "all-bf16, 2 layers back in float"
    assert outcomes(shipped)["all"].startswith("missed a gate")
    assert outcomes(shipped)["all, 2 layers back in float"] == "passed"


def test_exact_rest_alone_may_be_enough() -> None:
    stages = Stages(
        ["all-bf16", "depthwise-bf16", "depthwise-sums-bf16"], lambda c: c.name == "all"
    )
    assert ship(stages).choice.chosen == "all"
    assert not any("back" in c.name for c in stages.asked)


def test_reverting_may_cost_what_int8_gained() -> None:
    """With three layers back in float, bf16 is the faster one."""
    stages = Stages(
        ["all", "sums-float", "all-bf16"],
        lambda c: c.precision != "int8" or len(c.exclude.layers) >= 3,
    )
    stages.later = ("all, 1 layers back in float", "bf16")
    shipped = ship(stages)
    assert shipped.choice.chosen == "bf16"
    assert shipped.choice.reason.startswith("no INT8 engine that passes is faster than bf16")
    assert "all, 3 layers back in float" in outcomes(shipped)


def test_no_int8_passes_but_float_does() -> None:
    shipped = ship(Stages(["all", "fp32", "bf16"], lambda c: c.name == "fp32"))
    assert shipped.choice.chosen == "fp32"
    stages = Stages(["all", "sums-float", "all-bf16"], lambda c: c.precision == "fp32")
    shipped = ship(stages)
    assert shipped.choice.chosen == "fp32"
    assert shipped.choice.reason == (
        "none of 7 INT8 engines that were judged passed the gates, fp32 does"
    )


def test_nothing_passes() -> None:
    shipped = ship(Stages(["all", "bf16"], lambda c: False))
    assert not shipped.judged.report.passed
    assert shipped.choice.chosen == "all"
    assert "no candidate passed" in shipped.choice.reason


@pytest.mark.parametrize("why", ["fast", "no samples"])
def test_no_reverting(why: str) -> None:
    stages = Stages(["all"], lambda c: False, effort="fast" if why == "fast" else "default")
    stages.calibrated = why == "fast"
    assert ship(stages).choice.chosen == "all"
    floats = [] if why == "fast" else ["bf16", "fp32"]
    assert [c.name for c in stages.asked] == ["all", *floats]


def test_best_effort_leaves_the_noisiest_float() -> None:
    stages = Stages(["all"], lambda c: True, effort="best")
    ship(stages)
    assert "layer0" in stages.asked[0].exclude.layers
    default = Stages(["all"], lambda c: True)
    ship(default)
    assert not default.asked[0].exclude.layers


class TestKernelsOfOurs:
    """The device is here, so engines with them are among the candidates."""

    HERE = on_its_gpu(Target.load("orin"))

    def test_the_faster_engine_says_what_they_gain(self) -> None:
        shipped = ship(Stages(["all with plugins", "all", "fp16"], lambda c: True, self.HERE))
        assert shipped.choice.chosen == "all with plugins"
        assert shipped.choice.reason == (
            "measured on this machine: 1.000 ms, 2.00x the speed of fp16; 1.000 ms with kernels of "
            "ours, 1.500 ms without"
        )

    def test_one_that_misses_a_gate_is_passed_over(self) -> None:
        shipped = ship(Stages(["all with plugins", "all"], lambda c: not c.plain, self.HERE))
        assert shipped.choice.chosen == "all"
        assert outcomes(shipped)["all with plugins"].startswith("missed a gate")

    def test_one_that_was_not_built_says_why(self) -> None:
        shipped = ship(Stages(["all", "fp16"], lambda c: True, self.HERE))
        assert shipped.choice.chosen == "all"
        assert shipped.choice.reason.endswith("; without kernels of ours: not built")

    def test_float_with_them_is_faster_than_8_bits(self) -> None:
        stages = Stages(["fp16 with plugins", "all", "fp16"], lambda c: True, self.HERE)
        shipped = ship(stages)
        assert shipped.choice.chosen == "fp16 with plugins"
        assert shipped.choice.reason.startswith("no INT8 engine that passes is faster than fp16")
        assert [c.plain for c in stages.asked] == ["fp16"]

    def test_layers_go_back_from_the_plain_one_and_both_race_again(self) -> None:
        """What is lost is lost in both, and a wrong kernel of ours says nothing of layers."""
        stages = Stages(
            ["all with plugins", "all", "sums-float"],
            lambda c: len(c.exclude.layers) >= 1,
            self.HERE,
        )
        stages.later = ("all, 1 layer back in float with plugins",)
        shipped = ship(stages)
        assert shipped.choice.chosen == "all, 1 layer back in float with plugins"
        tried = [c for c in stages.asked if "back" in c.name]
        assert [bool(c.plain) for c in tried] == [False, True]

    def test_the_plain_one_is_judged_before_layers_go_back(self) -> None:
        """Three faster ones miss the gate, all with kernels of ours; the fourth is enough."""
        order = ["all with plugins", "sums-float with plugins", "fp16 with plugins", "all"]
        stages = Stages(order, lambda c: not c.plain, self.HERE)
        assert ship(stages).choice.chosen == "all"
        assert not any("back" in c.name for c in stages.asked)

    def test_what_was_not_built_is_not_built_as_the_last_resort(self) -> None:
        stages = Stages(["all"], lambda c: False, self.HERE)
        ship(stages)
        assert not any(c.plain for c in stages.asked)


def test_a_slower_float_engine_does_not_end_the_search() -> None:
    """all misses the gate and bf16 is next: one layer back in float is still faster than bf16."""
    stages = Stages(["all", "bf16"], lambda c: c.precision != "int8" or len(c.exclude.layers) >= 1)
    shipped = ship(stages)
    assert shipped.choice.chosen == "all, 1 layer back in float"
    assert "2.00x the speed of fp32" in shipped.choice.reason
    assert "all" not in {c.name for c in stages.asked if c.precision != "int8"}
