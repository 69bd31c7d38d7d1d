"""simplify: folds, checks itself by numbers, and keeps the model when anything is off."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from helpers import assert_same_numbers, model_from, ops, weight

from deploy import simplify as stage
from deploy.artifacts.model import Model, copy_proto
from deploy.simplify import seeded_feeds, simplify

Change = Callable[[Model], onnx.ModelProto]

FOLDABLE = model_from(
    """
    g (float[N,3,8,6] x) => (float[N,3,48] y) {
        k = Constant<value: tensor = float[3] {2.0, 3.0, 4.0}>()
        l = Neg(k)
        s = Shape<start=2>(x)
        p = ReduceProd(s)
        m = Concat<axis=0>(zero, three, p)
        r = Reshape(x, m)
        t = Transpose<perm=[0,2,1]>(r)
        u = Mul(t, l)
        y = Transpose<perm=[0,2,1]>(u)
        dead = Relu(x)
    }
    """,
    {"zero": np.array([0]), "three": np.array([3])},
)


def swap(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Let `change` be what onnxslim does to the proto."""
    monkeypatch.setattr(stage, "_slim", change)


def outcome(model: Model) -> tuple[str, str]:
    (decision,) = model.decisions
    assert (decision.stage, decision.rule) == ("simplify", "onnxslim")
    return decision.outcome, decision.reason


def test_folds_constants_and_drops_dead_nodes() -> None:
    before = FOLDABLE.proto.SerializeToString(deterministic=True)
    slim = simplify(FOLDABLE)
    assert FOLDABLE.proto.SerializeToString(deterministic=True) == before
    assert ops(slim) == ["Reshape", "Transpose", "Mul", "Transpose"]
    kind, reason = outcome(slim)
    assert kind == "applied"
    assert reason.startswith("10 -> 4 nodes")
    assert_same_numbers(FOLDABLE, slim)


def test_layers_are_left_to_fuse() -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,4,6,4] y) {
        c = Conv(x, w)  y = BatchNormalization(c, k, k, k, v)
    }
    """
    model = model_from(text, {"w": weight(4, 3, 3, 3), "k": weight(4), "v": abs(weight(4)) + 1})
    assert ops(simplify(model)) == ["Conv", "BatchNormalization"]


def test_a_crash_leaves_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(model: Model) -> onnx.ModelProto:
        raise IndexError("list index\nout of range")

    swap(monkeypatch, crash)
    slim = simplify(FOLDABLE)
    assert slim.serialized == FOLDABLE.serialized
    assert outcome(slim) == ("skipped", "onnxslim failed: list index out of range")


def changed(op_type: str | None = None, *, rename: str = "", drop: bool = False) -> Change:
    def change(model: Model) -> onnx.ModelProto:
        proto = copy_proto(model.proto)
        if op_type:
            proto.graph.node[0].op_type = op_type
        if rename:
            proto.graph.node[0].output[0] = proto.graph.output[0].name = rename
        if drop:
            del proto.graph.node[:]
        return proto

    return change


RELU = model_from("g (float[N,30] x) => (float[N,30] y) { y = Relu(x) }")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed("Abs"), r"onnxslim changed output 'y' \(-?\d dB\)"),
        (changed(rename="z"), "onnxslim changed the inputs or outputs"),
        (changed("NoSuchOp"), "onnxslim failed: m: a rewrite left an invalid graph"),
        (changed(drop=True), "onnxslim failed"),
    ],
    ids=["numbers", "names", "unknown op", "no nodes"],
)
def test_a_wrong_result_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, change: Change, reason: str
) -> None:
    swap(monkeypatch, change)
    slim = simplify(RELU)
    assert ops(slim) == ["Relu"]
    kind, why = outcome(slim)
    assert kind == "skipped"
    assert re.match(reason, why)


def test_the_same_names_in_another_type_are_not_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(model: Model) -> onnx.ModelProto:
        text = "g (float[N,30] x) => (float16[N,30] y) { a = Relu(x) y = Cast<to=10>(a) }"
        return model_from(text).proto

    swap(monkeypatch, narrow)
    assert outcome(simplify(RELU)) == ("skipped", "onnxslim changed output 'y' (-200 dB)")


def test_a_model_that_cannot_be_run_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeded index is 1, and the table has one row."""
    text = "g (int64[N] x) => (float[N,3] y) { y = Gather(t, x) }"
    model = model_from(text, {"t": weight(1, 3)})
    kind, reason = outcome(simplify(model))
    assert kind == "skipped"
    assert reason.startswith("the simplified model couldn't be compared: m: ONNX Runtime stopped")


def test_nan_in_the_same_places_is_the_same() -> None:
    model = model_from("g (float[N,30] x) => (float[N,30] y) { dead = Neg(x) y = Log(x) }")
    assert ops(simplify(model)) == ["Log"]


def test_float_constants_that_onnxslim_makes_double_are_not_kept() -> None:
    """onnxslim folds `value_floats` in float64; ONNX Runtime refuses the result."""
    text = """
    g (float[N,3] x) => (float[N,3] y) {
        k = Constant<value_floats=[2.0,3.0,4.0]>()  l = Neg(k)  y = Mul(x, l)
    }
    """
    slim = simplify(model_from(text))
    assert_same_numbers(model_from(text), slim)


def test_strings_are_compared_as_they_are() -> None:
    model = model_from("g (float[N,3] x) => (string[N,3] y) { dead = Neg(x) y = Cast<to=8>(x) }")
    assert ops(simplify(model)) == ["Cast"]


def test_seeded_feeds_are_the_same_every_time() -> None:
    model = model_from(
        "g (float16[N,3] x, int64[N,2] i, bool[4] q) => (float16[N,3] y) { y = Relu(x) }"
    )
    one, two = seeded_feeds(model.inputs), seeded_feeds(model.inputs)
    assert {n: (v.shape, v.dtype.name) for n, v in one.items()} == {
        "x": ((1, 3), "float16"),
        "i": ((1, 2), "int64"),
        "q": ((4,), "bool"),
    }
    assert all(np.array_equal(one[n], two[n]) for n in one)
    assert (one["i"] == 1).all() and one["q"].all()
