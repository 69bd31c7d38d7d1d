"""The fusion driver with small rules: what it refuses, how it names, when it ends."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from helpers import assert_same_numbers, model_from, weight

from deploy.artifacts.model import Decision, Model
from deploy.errors import ModelError
from deploy.surgery.graph import producer, to_graph, to_model
from deploy.surgery.rewrite import New, Replace, Rule, Skip, rewrite

CHAIN = "g (float[N,3] x) => (float[N,3] y) { a = Relu(x) b = Neg(a) y = Abs(b) }"


def rewritten(model: Model, rule: Rule, name: str = "rule") -> tuple[Model, list[Decision]]:
    graph = to_graph(model)
    decisions = rewrite(graph, name, rule)
    return to_model(graph, model, decisions), decisions


def shape_of(model: Model) -> list[tuple[str, list[str], list[str]]]:
    return [(n.op_type, list(n.input), list(n.output)) for n in model.proto.graph.node]


def reasons(decisions: list[Decision]) -> list[tuple[str, str, str]]:
    return [(d.outcome, d.subject, d.reason) for d in decisions]


def merge_neg(node: gs.Node) -> Replace | Skip | None:
    """Relu -> Neg becomes one Mul by -1 of the Relu's input: enough to lose the value between."""
    before = producer(node.inputs[0]) if node.op == "Neg" else None
    if before is None or before.op != "Relu":
        return None
    new = New("Mul", (before.inputs[0], np.float32([-1])), (node.outputs[0],))
    return Replace((before, node), (new,), "merged", 12)


def test_applies_and_reports() -> None:
    model, decisions = rewritten(model_from(CHAIN), merge_neg)
    assert shape_of(model) == [("Mul", ["x", "b/Mul_1"], ["b"]), ("Abs", ["b"], ["y"])]
    assert decisions == [Decision("fuse", "rule", "applied", "Neg -> b", "merged", 12)]


def test_refuses_to_lose_a_value_that_somebody_else_reads() -> None:
    text = "g (float[N,3] x) => (float[N,3] b, float[N,3] y) { a = Relu(x) b = Neg(a) y = Abs(a) }"
    model, decisions = rewritten(model_from(text), merge_neg)
    assert reasons(decisions) == [("skipped", "Neg -> b", "'a' is also read by 'Abs -> y'")]
    assert [op for op, _, _ in shape_of(model)] == ["Relu", "Neg", "Abs"]


def test_refuses_to_lose_an_output_of_the_model() -> None:
    text = "g (float[N,3] x) => (float[N,3] b, float[N,3] a) { a = Relu(x) b = Neg(a) }"
    model, decisions = rewritten(model_from(text), merge_neg)
    assert reasons(decisions) == [("skipped", "Neg -> b", "'a' is an output of the model")]
    assert [s.name for s in model.outputs] == ["b", "a"]


def test_a_body_that_reads_a_value_is_a_reader() -> None:
    text = """
    g (float[N,3] x, bool q) => (float[N,3] b, float[N,3] z) {
        a = Relu(x)
        b = Neg(a)
        z = If (q) <
            then_branch = t () => (float[N,3] u) { u = Exp(a) },
            else_branch = e () => (float[N,3] v) { v = Identity(x) }
        >
    }
    """
    _, decisions = rewritten(model_from(text), merge_neg)
    assert reasons(decisions) == [("skipped", "Neg -> b", "'a' is also read by 'Exp -> u'")]


def test_refuses_to_remove_a_node_of_a_body() -> None:
    text = """
    g (float[N,3] x, bool q) => (float[N,3] z) {
        a = Relu(x)
        z = If (q) <
            then_branch = t () => (float[N,3] u) { u = Exp(a) },
            else_branch = e () => (float[N,3] v) { v = Identity(x) }
        >
    }
    """

    def remove_reader(node: gs.Node) -> Replace | None:
        if node.op != "Relu":
            return None
        reader = node.outputs[0].outputs[0]
        return Replace((reader,), (New("Neg", (node.outputs[0],), (reader.outputs[0],)),), "no")

    _, decisions = rewritten(model_from(text), remove_reader)
    assert reasons(decisions) == [
        ("skipped", "Relu -> a", "'Exp -> u' lies in the body of another node")
    ]


def test_refuses_to_read_a_value_of_a_body() -> None:
    text = """
    g (float[N,3] x, bool q) => (float[N,3] z, float[N,3] y) {
        a = Relu(x)
        z = If (q) <
            then_branch = t () => (float[N,3] u) { m = Neg(a) u = Exp(m) },
            else_branch = e () => (float[N,3] v) { v = Identity(x) }
        >
        n = Neg(a)
        y = Abs(n)
    }
    """

    def read_twin(node: gs.Node) -> Replace | None:
        before = producer(node.inputs[0]) if node.op == "Abs" else None
        if before is None:
            return None
        twin = before.inputs[0].outputs[0].outputs[0]
        return Replace((node, before), (New("Abs", (twin,), (node.outputs[0],)),), "one Neg")

    _, decisions = rewritten(model_from(text), read_twin)
    assert reasons(decisions) == [
        ("skipped", "Abs -> y", "'m' is computed in the body of another node")
    ]


def test_a_node_whose_body_reads_a_new_value_comes_after_it() -> None:
    text = """
    g (float[N,3] x, bool q) => (float[N,3] z) {
        a = Relu(x)
        b = Neg(a)
        z = If (q) <
            then_branch = t () => (float[N,3] u) { u = Exp(b) },
            else_branch = e () => (float[N,3] v) { v = Identity(b) }
        >
    }
    """
    model, _ = rewritten(model_from(text), merge_neg)
    assert [op for op, _, _ in shape_of(model)] == ["Mul", "If"]


def test_constants_are_named_after_the_output_and_never_twice() -> None:
    text = """
    g (float[N,3] x) => (float[N,3] y, float[N,3] z) {
        a = Relu(x)  y = Neg(a)  c = Relu(x)  d = Neg(c)  z = Add(d, "y/Mul_1")
    }
    """.replace('"y/Mul_1"', "taken")
    source = model_from(text, {"taken": weight(3)})
    # the name the driver wants is another weight's already
    source.proto.graph.initializer[0].name = "y/Mul_1"
    source.proto.graph.node[4].input[1] = "y/Mul_1"
    model, _ = rewritten(source, merge_neg)
    names = [i.name for i in model.proto.graph.initializer]
    assert sorted(names) == ["d/Mul_1", "y/Mul_1", "y/Mul_1_2"]
    np.testing.assert_array_equal(
        {i.name: i for i in model.proto.graph.initializer}["y/Mul_1"].raw_data, weight(3).tobytes()
    )


def test_fresh_values_get_a_name_from_what_they_read() -> None:
    def through_two(node: gs.Node) -> Replace | None:
        if node.op != "Abs":
            return None
        middle = gs.Variable("", np.float32)
        first = New("Mul", (node.inputs[0], node.inputs[0]), (middle,))
        return Replace((node,), (first, New("Sqrt", (middle,), (node.outputs[0],))), "by hand")

    source = model_from(CHAIN)
    model, _ = rewritten(source, through_two, "longer")
    assert shape_of(model)[2:] == [
        ("Mul", ["b", "b"], ["b/longer/Mul_0"]),
        ("Sqrt", ["b/longer/Mul_0"], ["y"]),
    ]
    assert_same_numbers(source, model)


def test_a_rule_that_never_ends_is_stopped() -> None:
    def turn(node: gs.Node) -> Replace | None:
        other = {"Abs": "Relu", "Relu": "Abs"}.get(node.op)
        if other is None:
            return None
        return Replace((node,), (New(other, tuple(node.inputs), tuple(node.outputs)),), "again")

    with pytest.raises(ModelError, match=r"fusion 'turn' doesn't come to an end near node .*Relu'"):
        rewrite(
            to_graph(model_from("g (float[N] x) => (float[N] y) { y = Relu(x) }")), "turn", turn
        )


def test_many_readers_are_no_endless_rule() -> None:
    """Every firing looks at all of them again."""
    ends = range(50)
    text = f"""g (float[N,3] x) => ({", ".join(f"float[N,3] y{i}" for i in ends)})
      {{ a = Relu(x) {" ".join(f"y{i} = Neg(a)" for i in ends)} }}"""

    def one_by_one(node: gs.Node) -> Replace | None:
        readers = list(node.outputs[0].outputs) if node.op == "Relu" else []
        first = next((reader for reader in readers if reader.op == "Neg"), None)
        if first is None:
            return None
        new = [
            New("Abs" if reader is first else reader.op, tuple(reader.inputs), (r,))
            for reader in readers
            for r in reader.outputs
        ]
        relu = New("Relu", (node.inputs[0],), (node.outputs[0],))
        return Replace((node, *readers), (relu, *new), "one more")

    model, decisions = rewritten(model_from(text), one_by_one)
    assert [op for op, _, _ in shape_of(model)] == ["Relu"] + ["Abs"] * 50
    assert len(decisions) == 50


def test_skips_of_nodes_that_are_gone_vanish() -> None:
    def rule(node: gs.Node) -> Replace | Skip | None:
        if node.op == "Relu":
            return Skip("not yet")
        return merge_neg(node)

    _, decisions = rewritten(model_from(CHAIN), rule)
    assert reasons(decisions) == [("applied", "Neg -> b", "merged")]


def test_skips_of_nodes_nobody_needs_any_more_vanish() -> None:
    def cut(node: gs.Node) -> Replace | Skip | None:
        """y no longer depends on Relu and Neg, which cleanup then removes."""
        if node.op == "Relu":
            return Skip("not yet")
        if node.op != "Abs":
            return None
        source = node.inputs[0].inputs[0].inputs[0].inputs[0].inputs[0]
        return Replace((node,), (New("Exp", (source,), (node.outputs[0],)),), "cut")

    model, decisions = rewritten(model_from(CHAIN), cut)
    assert reasons(decisions) == [("applied", "Abs -> y", "cut")]
    assert [op for op, _, _ in shape_of(model)] == ["Exp"]


def test_a_skip_is_reported_once_with_its_last_reason() -> None:
    seen: list[str] = []

    def rule(node: gs.Node) -> Replace | Skip | None:
        if node.op == "Abs":
            seen.append("visit")
            return Skip(f"visit {len(seen)}")
        return merge_neg(node)

    _, decisions = rewritten(model_from(CHAIN), rule)
    assert reasons(decisions)[1:] == [("skipped", "Abs -> y", f"visit {len(seen)}")]
    assert len(seen) == 2, "the reader of a new value is looked at again"


def test_what_feeds_a_replaced_node_is_looked_at_again() -> None:
    """Exp can only be merged into the Mul that merging Neg makes after Exp's turn."""

    def merge(node: gs.Node) -> Replace | Skip | None:
        if node.op != "Exp":
            return merge_neg(node)
        (reader,) = node.outputs[0].outputs
        if reader.op != "Mul":
            return Skip("no Mul behind it")
        new = New("Sum", (node.inputs[0], reader.inputs[1]), (reader.outputs[0],))
        return Replace((node, reader), (new,), "again")

    text = "g (float[N,3] x) => (float[N,3] y) { e = Exp(x) a = Relu(e) y = Neg(a) }"
    _, decisions = rewritten(model_from(text), merge)
    assert [(d.outcome, d.reason) for d in decisions] == [
        ("applied", "merged"),
        ("applied", "again"),
    ]


def test_a_broken_rule_is_caught_by_the_checker() -> None:
    def wrong(node: gs.Node) -> Replace | None:
        if node.op != "Abs":
            return None
        return Replace((node,), (New("NoSuchOp", tuple(node.inputs), tuple(node.outputs)),), "x")

    with pytest.raises(ModelError, match="a rewrite left an invalid graph: No Op registered"):
        rewritten(model_from(CHAIN), wrong)
