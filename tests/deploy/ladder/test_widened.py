"""The rung of a model that another float type was taken from."""

from __future__ import annotations

import pytest
from helpers import model_from, weight
from ladder_faults import broken, changed, turned
from tiny_models import samples_of

from deploy.artifacts.ladder import Ladder
from deploy.artifacts.model import Model
from deploy.ladder.climb import Way, ladder
from deploy.load import load
from deploy.simplify import simplify
from deploy.widen import widen

INSIDE = (
    "g (float[N,6] x) => (float[N,6] y) { h = Cast <to = 10> (x) a = MatMul (h, v) "
    "b = Tanh (a) m = MatMul (b, w) y = Cast <to = 1> (m) }"
)
ALL = "g (float16[N,6] x) => (float16[N,6] y) { a = MatMul (x, v) b = Tanh (a) y = MatMul (b, w) }"
WEIGHTS = {"v": weight(6, 6, dtype="float16"), "w": weight(6, 6, seed=1, dtype="float16")}


def climbed(source: Model, wide: Model) -> Ladder:
    graphs = {"source": source, "loaded": load(source), "widened": wide}
    way = Way(graphs={**graphs, "simplified": simplify(wide)})
    return ladder(way, samples_of(source, 4))


@pytest.mark.parametrize("text", [INSIDE, ALL])
def test_what_the_type_rounds_is_no_fault(text: str) -> None:
    source = model_from(text, WEIGHTS)
    found = climbed(source, widen(load(source)))
    assert [rung.name for rung in found.rungs] == ["source", "loaded", "widened", "simplified"]
    assert found.passed, found.verdict()


def test_why_less_is_allowed() -> None:
    """Where the truth itself rounds; one in float32 has to be met to round-off."""
    inside, all_ = (
        climbed(m, widen(load(m))).rungs[2] for m in (model_from(t, WEIGHTS) for t in (INSIDE, ALL))
    )
    assert inside.allowed_db == 30.0
    assert "rounds what its layers give" in inside.allowed_why
    assert all_.allowed_db >= 60.0


@pytest.mark.parametrize("text", [INSIDE, ALL])
def test_a_wrong_weight_is_one(text: str) -> None:
    source = model_from(text, WEIGHTS)
    wrong = broken(widen(load(source)), "a", changed(turned))
    found = climbed(source, wrong)
    assert [rung.name for rung in found.broken] == ["widened"]
