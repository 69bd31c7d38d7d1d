"""no_effect: a flag that matches nothing is said, one that does isn't."""

import pytest
from helpers import model_from
from tiny_models import model, node, normal, residual

from deploy.artifacts.model import Model
from deploy.no_effect import no_effect, nothing_narrow, unread
from deploy.recipe import Recipe
from deploy.target import Precision
from deploy.weights.compress import WeightForm, compress

SWISH = "g (float[1,4] x) => (float[1,4] y) { s = Sigmoid(x) y = Mul(x, s) }"


def two_products() -> Model:
    nodes = [node("MatMul", ["x", "w1"], ["a"]), node("MatMul", ["a", "w2"], ["y"])]
    weights = {"w1": normal(64, 64, seed=1), "w2": normal(64, 32, seed=2)}
    return model(nodes, {"x": ["N", 64]}, {"y": ["N", 32]}, weights)


@pytest.mark.parametrize("kind", ["Add", "Conv", "Conv:spatial", "first"])
def test_a_kind_that_is_there_is_not_worth_a_word(kind: str) -> None:
    assert list(no_effect(Recipe(keep_float=(kind,)), residual(1))) == []


@pytest.mark.parametrize("kind", ["Conv:depthwise", "ConvTranspose"])
def test_a_kind_that_is_not_there_is_named(kind: str) -> None:
    said = list(no_effect(Recipe(keep_float=(kind,)), residual(1)))
    assert said == [
        f"--keep-float {kind}: the graph has no such layer, so nothing stays float for it"
    ]


def test_an_approximation_of_nothing_is_named() -> None:
    recipe = Recipe(approximate=("swish",))
    assert [line.split(":")[0] for line in no_effect(recipe, residual(1))] == [
        "--approximate swish"
    ]
    assert list(no_effect(recipe, model_from(SWISH))) == []


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_what_only_8_bits_read_is_named_in_other_builds(precision: Precision) -> None:
    recipe = Recipe(keep_float=("Add",), effort="best", search_s=3)
    (said,) = unread(recipe, precision)
    assert said.startswith("--keep-float, --effort, --search-s: only INT8 and FP8")
    assert list(unread(recipe, "int8")) == list(unread(recipe, "fp8")) == []
    assert list(unread(Recipe(samples=5), precision)) == []


def test_4_bits_that_no_weight_took_are_named() -> None:
    asked, layers = Recipe(int4_weights=True), two_products()
    narrow = compress(layers, WeightForm(4, smallest_bytes=8, narrow_ends=True))
    wide = compress(layers, WeightForm(4, smallest_bytes=8, narrow=()))
    assert list(nothing_narrow(asked, narrow)) == []
    assert [s.split(",")[0] for s in nothing_narrow(asked, wide)] == [
        "--int4-weights: no weight took 4 bits"
    ]
    assert list(nothing_narrow(Recipe(int8_weights=True), wide)) == []
