"""What every fusion promises; a new file in deploy/fusions is found by itself."""

from __future__ import annotations

import inspect

import onnx_graphsurgeon as gs
import pytest
from helpers import model_from, weight

from deploy import registry
from deploy.surgery.graph import to_graph
from deploy.surgery.rewrite import Replace, Skip

FUSIONS = registry.names("fusion")

# several operators around each other, so that every known rule fires or skips somewhere
RICH = model_from(
    """
    g (float[N,3,8,6] x) => (float16[N,6,8,4] y, float[N,4,8,6] z) {
        c = Conv<pads=[1,1,1,1]>(x, w)
        b = BatchNormalization(c, gamma, beta, mean, var)
        z = Mul(c, s)
        t = Transpose<perm=[0,3,2,1]>(b)
        y = Cast<to=10>(t)
    }
    """,
    {
        "w": weight(4, 3, 3, 3),
        "gamma": weight(4, seed=1),
        "beta": weight(4, seed=2),
        "mean": weight(4, seed=3),
        "var": abs(weight(4, seed=4)) + 1,
        "s": weight(4, 1, 1, seed=5),
    },
)
UNRELATED = model_from("g (float[2,5] x) => (float[2,5] y) { y = Softsign(x) }")


def picture(graph: gs.Graph) -> list[object]:
    """Everything a rule could have changed."""
    return [
        (
            node.op,
            node.name,
            dict(node.attrs),
            [
                (t.name, id(t), str(t.dtype), list(t.shape or ()))
                for t in (*node.inputs, *node.outputs)
            ],
            [t.values.tobytes() for t in node.inputs if isinstance(t, gs.Constant)],
        )
        for node in graph.nodes
    ]


@pytest.mark.parametrize("name", FUSIONS)
def test_the_docstring_shows_before_and_after(name: str) -> None:
    documentation = registry.module("fusion", name).__doc__ or ""
    assert any("=>" in line for line in documentation.splitlines())
    assert documentation.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", FUSIONS)
def test_a_rule_takes_one_node(name: str) -> None:
    rule = registry.load("fusion", name)
    assert rule.__name__ == name
    assert list(inspect.signature(rule).parameters) == ["node"]


@pytest.mark.parametrize("name", FUSIONS)
def test_an_unrelated_node_is_none(name: str) -> None:
    rule = registry.load("fusion", name)
    assert [rule(node) for node in to_graph(UNRELATED).nodes] == [None]


@pytest.mark.parametrize("name", FUSIONS)
def test_a_rule_changes_nothing(name: str) -> None:
    rule = registry.load("fusion", name)
    graph = to_graph(RICH)
    before = picture(graph)
    found = [rule(node) for node in graph.nodes]
    assert picture(graph) == before
    assert all(f is None or isinstance(f, Replace | Skip) for f in found)


@pytest.mark.parametrize("name", FUSIONS)
def test_asking_twice_gives_the_same_answer(name: str) -> None:
    rule = registry.load("fusion", name)
    graph = to_graph(RICH)

    def answers() -> list[object]:
        found = [rule(node) for node in graph.nodes]
        return [(type(f), getattr(f, "reason", None)) for f in found]

    assert answers() == answers()
