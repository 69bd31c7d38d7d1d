"""Stretches of a graph put one behind the other compute what the whole computes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers import feeds_for, model_from, run, weight
from onnx import helper, numpy_helper
from tiny_models import residual

from deploy.surgery.graph import infer
from deploy.surgery.spans import Graft, Spans

TEXT = """
g (float[N,3,4,5] x, bool flag) => (float[N,3,4,5] y, float[N,3,4,5] z) {
    a = Relu(x)
    b = Mul(a, w)
    c = If(flag) <
        then_branch = t () => (float[N,3,4,5] u) { u = Add(a, w) },
        else_branch = e () => (float[N,3,4,5] v) { v = Identity(x) }
    >
    z = Neg(b)
    y = Add(b, c)
}
"""
WEIGHTS = {"w": weight(1, 3, 1, 1)}


def branched() -> Spans:
    model = model_from(TEXT, WEIGHTS)
    return Spans(model.derive(infer(model.proto), ()))


@pytest.mark.parametrize("cuts", list(itertools.combinations(range(1, 8), 2)))
def test_pieces_compute_what_the_whole_does(cuts: tuple[int, int]) -> None:
    whole = residual()
    spans, state = Spans(whole), feeds_for(whole)
    expected = run(whole, state)["y"]
    for start, stop in itertools.pairwise((0, *cuts)):
        held = spans.live(stop)
        made = [name for name in held if spans.number(name) >= start]
        piece, takes = spans.between(start, stop, made)
        state = {**state, **run(piece, {name: state[name] for name in takes})}
        state = {name: state[name] for name in held}
    piece, takes = spans.between(cuts[-1], len(spans), ["y"])
    assert set(takes) == set(state)
    np.testing.assert_array_equal(run(piece, state)["y"], expected)


def test_what_a_subgraph_takes_from_outside_is_held() -> None:
    spans = branched()
    # u = Add(a, w) and v = Identity(x) lie inside the If
    assert spans.live(2) == ["a", "b", "flag", "x"]
    assert spans.live(3) == ["b", "c"]
    piece, takes = spans.between(2, 3, ["c"])
    assert sorted(takes) == ["a", "flag", "x"]
    assert [w.name for w in piece.proto.graph.initializer] == ["w"]


def test_an_output_read_by_nobody_is_not_held() -> None:
    assert branched().live(4) == ["b", "c"]
    assert branched().live(5) == []


def test_numbers() -> None:
    spans = branched()
    assert [spans.number(name) for name in ("x", "a", "b", "c", "z", "y")] == [-1, 0, 1, 2, 3, 4]
    assert len(spans) == 5


def test_a_graft_changes_what_is_read_and_made() -> None:
    whole = model_from("g (float[N,2] x) => (float[N,2] y) { a = Relu(x)\ny = Neg(a) }")
    graft = Graft(
        reads={(1, 0): "half"},
        makes={1: "raw"},
        nodes=[
            (1, helper.make_node("Mul", ["a", "k"], ["half"])),
            (2, helper.make_node("Add", ["raw", "one"], ["y"])),
        ],
        weights=[
            numpy_helper.from_array(np.float32([0.5]), "k"),
            numpy_helper.from_array(np.float32([1.0]), "one"),
        ],
    )
    spans = Spans(whole)
    before = whole.serialized
    piece, _ = spans.between(0, 2, ["y"], graft)
    x = np.float32([[-4.0, 6.0]])
    np.testing.assert_array_equal(run(piece, {"x": x})["y"], [[1.0, -2.0]])
    # without it nothing has changed
    piece, _ = spans.between(0, 2, ["y"])
    np.testing.assert_array_equal(run(piece, {"x": x})["y"], [[0.0, -6.0]])
    assert whole.proto.SerializeToString(deterministic=True) == before


def test_a_cut_is_where_every_value_has_a_type_and_a_rank() -> None:
    text = """
    g (float[N,6] x, int64[K] shape) => (float[N,4] y) {
        a = Relu(x)
        b = Reshape(a, shape)
        c = Neg(a)
        d = Reshape(b, back)
        e = Add(c, d)
        y = MatMul(e, w)
    }
    """
    back = np.array([-1, 6], np.int64)
    model = model_from(text, {"back": back, "w": weight(6, 4)})
    spans = Spans(model.derive(infer(model.proto), ()))
    # nothing says how many dimensions b has, and it is read until node 3
    assert spans.live(2) == ["a", "b"]
    assert [spans.cut(number) for number in range(6)] == [0, 1, 1, 1, 4, 5]
