"""no_effect: a flag that matches nothing is said, one that does isn't."""

import pytest
from helpers import model_from
from tiny_models import residual

from deploy.no_effect import no_effect
from deploy.recipe import Recipe

SWISH = "g (float[1,4] x) => (float[1,4] y) { s = Sigmoid(x) y = Mul(x, s) }"


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
