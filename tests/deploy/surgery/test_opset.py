"""The opset of a graph: raised only where every operator means the same, and otherwise why not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from helpers import assert_same_numbers, model_from, weight

from deploy.artifacts.model import Model
from deploy.surgery import opset
from deploy.surgery.graph import to_graph, to_model
from deploy.surgery.opset import HIGHEST_OPSET, needed_opset, raise_for
from deploy.surgery.rewrite import New, Replace, Skip, rewrite


def raised(model: Model, wanted: int) -> Model | str:
    """The model at the wanted opset, or why it stays."""
    graph = to_graph(model)
    reason = raise_for(graph, wanted, "HardSwish", ())
    return to_model(graph, model, ()) if reason is None else reason


def one(body: str, ends: str = "float[N,4,6] x) => (float[N,4,6] y", *, old: int = 13) -> Model:
    return model_from(f"g ({ends}) {{ {body} }}", opset=old)


@pytest.mark.parametrize(
    ("op", "old", "wanted"),
    [
        ("HardSwish", 11, 14),
        ("HardSwish", 14, 14),
        ("HardSwish", 17, 17),
        ("LayerNormalization", 13, 17),
        ("Mish", 13, 18),
        ("Gelu", 13, 20),
        # the version of opset 18 was withdrawn
        ("GroupNormalization", 13, 21),
        ("GroupNormalization", 18, 21),
        ("RMSNormalization", 17, 23),
        ("Swish", 21, 24),
        ("NoSuchOperator", 17, 17),
    ],
)
def test_what_an_operator_needs(op: str, old: int, wanted: int) -> None:
    assert needed_opset(op, old) == wanted


def test_a_lower_opset_is_never_written() -> None:
    model = one("y = Relu(x)", old=17)
    graph = to_graph(model)
    assert raise_for(graph, 14, "HardSwish", ()) is None
    assert graph.opset == 17


@pytest.mark.parametrize(
    "body",
    [
        "y = Relu(x)",
        "a = Add(x, x) b = Mul(a, x) c = Sub(b, x) y = Div(c, x)",
        "m = ReduceMean<axes=[1]>(x) y = Sub(x, m)",
        "m = ReduceMax<axes=[-1], keepdims=0>(x) u = Unsqueeze(m, a2) y = Sub(x, u)",
        "m = ReduceL2(x) y = Add(x, m)",
        "a, b = Split<axis=2>(x) y = Concat<axis=2>(b, a)",
        "a, b = Split<axis=2>(x, s) y = Concat<axis=2>(b, a)",
        "t = Transpose<perm=[0,2,1]>(x) s = Softmax(t) y = Transpose<perm=[0,2,1]>(s)",
        (
            "u = Unsqueeze(x, a2) p = AveragePool<kernel_shape=[3,1], pads=[1,0,1,0]>(u) "
            "y = Squeeze(p, a2)"
        ),
    ],
)
@pytest.mark.parametrize("wanted", [14, 18, HIGHEST_OPSET])
def test_what_means_the_same_is_raised_and_gives_the_same_bits(body: str, wanted: int) -> None:
    constants = {"a2": np.array([2]), "s": np.array([2, 4])}
    used = {n: v for n, v in constants.items() if f", {n})" in body}
    model = model_from(f"g (float[N,4,6] x) => (float[N,4,6] y) {{ {body} }}", used, opset=13)
    after = raised(model, wanted)
    assert isinstance(after, Model), after
    assert after.opset == wanted
    assert_same_numbers(model, after, rtol=0)


# what 22 to 24 gave more types and no other meaning
TYPES_ADDED = [
    *("Elu", "Selu", "Softplus", "Softsign", "Round", "Sin", "Cos", "Tan", "Sinh", "Cosh"),
    *("Asin", "Acos", "Atan", "Asinh", "Atanh", "ThresholdedRelu", "LpNormalization"),
    *("HardSwish", "HardSigmoid", "EyeLike"),
]


@pytest.mark.parametrize("op", TYPES_ADDED)
def test_what_only_got_more_types_gives_the_same_bits_at_24(op: str) -> None:
    model = model_from(f"g (float[4,6] x) => (float[4,6] y) {{ y = {op}(x) }}", opset=14)
    after = raised(model, 24)
    assert isinstance(after, Model), after
    assert after.opset == 24
    assert_same_numbers(model, after, rtol=0)


@pytest.mark.parametrize(
    "body",
    [
        "p = GlobalAveragePool(x) y = Mul(x, p)",
        "p = GlobalMaxPool(x) y = Mul(x, p)",
        "y = InstanceNormalization(x, s, s)",
        "v, i = TopK<axis=2>(x, k) r = Mul(v, v) y = Concat<axis=2>(v, r)",
        "y = DepthToSpace<blocksize=1>(x)",
    ],
)
def test_maps_give_the_same_bits_at_24(body: str) -> None:
    constants = {"s": np.float32([0.5, 2.0, -1.0]), "k": np.array([2])}
    used = {n: v for n, v in constants.items() if f" {n}" in body}
    model = model_from(f"g (float[N,3,4,5] x) => (float[N,3,4,5] y) {{ {body} }}", used, opset=13)
    after = raised(model, 24)
    assert isinstance(after, Model), after
    assert_same_numbers(model, after, rtol=0)


def test_what_onnx_runtime_does_not_run_from_22_on_keeps_the_opset() -> None:
    model = one("p = GlobalLpPool(x) y = Mul(x, p)")
    assert isinstance(raised(model, 21), Model)
    reason = "ONNX Runtime doesn't run 'GlobalLpPool -> p' from opset 22 on"
    assert raised(model, 22) == f"HardSwish needs opset 22; {reason}"


def test_swish_ends_where_onnx_runtime_has_it() -> None:
    graph = to_graph(one("y = Relu(x)", old=25))
    reason = raise_for(graph, 24, "Swish", ())
    assert reason == "ONNX Runtime runs Swish up to opset 24, and this is 25"
    assert raise_for(graph, 23, "RMSNormalization", ()) is None


OLD_FORMS = {
    "Squeeze": "u = Unsqueeze<axes=[1]>(x) y = Squeeze<axes=[1]>(u)",
    "ReduceSum": "m = ReduceSum<axes=[1], keepdims=1>(x) y = Sub(x, m)",
    "Split": "a, b = Split<axis=2, split=[2,4]>(x) y = Concat<axis=2>(b, a)",
    "Softmax": "y = Softmax<axis=-1>(x)",
    "LogSoftmax": "y = LogSoftmax<axis=2>(x)",
}


@pytest.mark.parametrize("body", OLD_FORMS.values(), ids=OLD_FORMS)
@pytest.mark.parametrize("wanted", [13, 20])
def test_forms_from_before_13_are_rewritten(body: str, wanted: int) -> None:
    model = one(body, old=11)
    after = raised(model, wanted)
    assert isinstance(after, Model), after
    assert_same_numbers(model, after, rtol=0)


def test_softmax_over_rows_would_change() -> None:
    reason = raised(one("y = Softmax<axis=1>(x)", old=11), 14)
    assert reason == (
        "HardSwish needs opset 14; 'Softmax -> y' would change its meaning at opset 13"
    )
    reason = raised(one("y = Softmax(x)", old=11), 14)
    assert isinstance(reason, str)


def test_a_resize_may_go_to_17_and_no_further() -> None:
    text = 'g (float[1,2,4,6] x) => (float[1,2,8,12] y) { y = Resize(x, "", scales) }'
    scales = {"scales": np.float32([1, 1, 2, 2])}
    assert isinstance(raised(model_from(text, scales, opset=13), 17), Model)
    reason = raised(model_from(text, scales, opset=13), 18)
    assert isinstance(reason, str)
    assert reason.endswith("'Resize -> y' would change its meaning at opset 18")


def test_a_mode_of_resize_that_13_dropped() -> None:
    text = """
    g (float[1,2,4,6] x) => (float[1,2,8,12] y) {
        y = Resize<coordinate_transformation_mode="tf_half_pixel_for_nn">(x, roi, scales)
    }
    """
    values = {"roi": np.zeros(8, np.float32), "scales": np.float32([1, 1, 2, 2])}
    reason = raised(model_from(text, values, opset=11), 14)
    assert reason == "HardSwish needs opset 14; 'Resize -> y' would change its meaning at opset 13"


def test_average_pooling_of_cut_windows_would_change() -> None:
    text = (
        "g (float[1,2,5,7] x) => (float[1,2,3,4] y) "
        "{ y = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x) }"
    )
    assert isinstance(raised(model_from(text, opset=13), 18), Model)
    reason = raised(model_from(text, opset=13), 20)
    assert isinstance(reason, str)
    assert "would change its meaning at opset 19" in reason


def test_training_batch_normalization_would_change() -> None:
    text = """
    g (float[2,3,5] x) => (float[2,3,5] y) {
        y, m, v, n, w = BatchNormalization(x, s, s, s, s)
    }
    """
    reason = raised(model_from(text, {"s": np.ones(3, np.float32)}, opset=13), 14)
    assert isinstance(reason, str)
    assert "would change its meaning at opset 14" in reason


def test_a_body_counts_too() -> None:
    text = """
    g (float[N,4,6] x, bool q) => (float[N,1,6] y) {
        y = If (q) <
            then_branch = t () => (float[N,1,6] u) { u = ReduceMean<axes=[1]>(x) },
            else_branch = e () => (float[N,1,6] v) { v = ReduceMax<axes=[1]>(x) }
        >
    }
    """
    model = model_from(text, opset=13)
    after = raised(model, 20)
    assert isinstance(after, Model), after
    assert_same_numbers(model, after, rtol=0)
    bad = text.replace("ReduceMax<axes=[1]>(x)", "ReduceMax<axes=[1]>(s)").replace(
        "{ v =", "{ s = Hardmax<axis=1>(x) v ="
    )
    reason = raised(model_from(bad, opset=11), 14)
    assert isinstance(reason, str)
    assert "'Hardmax -> s' would change its meaning at opset 13" in reason


def test_other_domains_keep_their_version() -> None:
    model = one("a = com.microsoft.Gelu(x) y = Relu(a)")
    # helpers import three domains
    after = raised(model, 20)
    assert isinstance(after, Model), after
    versions = {entry.domain: entry.version for entry in after.proto.opset_import}
    assert versions == {"": 20, "com.microsoft": 1, "onnx_deploy": 1}
    assert_same_numbers(model, after, rtol=0)


def test_never_above_the_highest() -> None:
    reason = raised(one("y = Relu(x)"), HIGHEST_OPSET + 2)
    assert reason == "HardSwish needs opset 26, above 24, the newest written here"


def test_a_models_own_functions_stay_as_they_are() -> None:
    graph = to_graph(one("y = Relu(x)"))
    graph.functions.append(gs.Function("f", domain="own"))
    reason = raise_for(graph, 14, "HardSwish", ())
    assert reason == "HardSwish needs opset 14; the model's own functions are written for 13"


def test_an_operator_nobody_knows() -> None:
    model = one("y = Relu(x)")
    graph = to_graph(model)
    graph.nodes[0].op = "NoSuchOperator"
    reason = raise_for(graph, 14, "HardSwish", ())
    assert reason == "HardSwish needs opset 14; 'NoSuchOperator -> y' is no operator of opset 13"


def test_nothing_is_changed_where_one_node_is_in_the_way() -> None:
    model = one("m = ReduceMean<axes=[1]>(x) h = Hardmax<axis=1>(x) y = Sub(h, m)", old=11)
    graph = to_graph(model)
    assert raise_for(graph, 18, "Mish", ()) is not None
    assert graph.opset == 11
    assert [n.attrs for n in graph.nodes if n.op == "ReduceMean"] == [{"axes": [1]}]


# ---- the tables against the changelog


def history(op: str, since: int) -> list[onnx.defs.OpSchema]:
    """The versions of an operator from the one that `since` has, up to the highest."""
    versions = {
        s.since_version: s
        for version in range(since, HIGHEST_OPSET + 1)
        for s in [onnx.defs.get_schema(op, version, "")]
    }
    return [versions[v] for v in sorted(versions)]


@pytest.mark.parametrize("op", opset._SAME_SINCE)
def test_the_table_agrees_with_the_changelog(op: str) -> None:
    """Every later version takes what an earlier one takes, with the same defaults."""
    versions = history(op, opset._SAME_SINCE[op])
    for old, new in pairwise(versions):
        assert not new.deprecated
        for name, attribute in old.attributes.items():
            later = new.attributes[name]
            assert later.default_value == attribute.default_value, name
            assert attribute.required or not later.required, name
        added = set(new.attributes) - set(old.attributes)
        assert not any(new.attributes[name].required for name in added)
        kinds = [i.option for i in old.inputs]
        first = [i.option for i in new.inputs][: len(kinds)]
        # an input may become optional, as Gemm's C did
        assert all(a == b or b.name == "Optional" for a, b in zip(kinds, first, strict=True))
        assert all(i.option.name == "Optional" for i in new.inputs[len(kinds) :])


@pytest.mark.parametrize("op", opset._AXES_MOVED_AT)
def test_axes_moved_where_the_table_says(op: str) -> None:
    at = opset._AXES_MOVED_AT[op]
    assert "axes" in onnx.defs.get_schema(op, at - 1, "").attributes
    schema = onnx.defs.get_schema(op, at, "")
    assert "axes" not in schema.attributes
    assert schema.inputs[1].name == "axes"


# ---- in the driver


def relu_to(op: str) -> object:
    def rule(node: gs.Node) -> Replace | Skip | None:
        if node.op != "Relu":
            return None
        return Replace((node,), (New(op, (node.inputs[0],), (node.outputs[0],)),), "another")

    return rule


def test_the_driver_raises_the_opset_and_says_so() -> None:
    model = one("a = Relu(x) m = ReduceMean<axes=[1]>(a) y = Sub(a, m)")
    graph = to_graph(model)
    decisions = rewrite(graph, "rule", relu_to("Mish"))
    assert graph.opset == 18
    assert [d.reason for d in decisions] == ["another; the model's opset raised from 13 to 18"]
    assert to_model(graph, model, ()).opset == 18


def test_the_driver_skips_where_it_cannot() -> None:
    graph = to_graph(one("a = Relu(x) y = Hardmax<axis=1>(a)", old=11))
    decisions = rewrite(graph, "rule", relu_to("HardSwish"))
    assert [(d.outcome, d.reason) for d in decisions] == [
        (
            "skipped",
            "HardSwish needs opset 14; 'Hardmax -> y' would change its meaning at opset 13",
        )
    ]
    assert [n.op for n in graph.nodes] == ["Relu", "Hardmax"]


def test_a_node_that_goes_away_is_not_in_the_way() -> None:
    def rule(node: gs.Node) -> Replace | Skip | None:
        if node.op != "Hardmax":
            return None
        return Replace((node,), (New("HardSwish", (node.inputs[0],), (node.outputs[0],)),), "x")

    graph = to_graph(one("y = Hardmax<axis=1>(x)", old=11))
    assert [d.outcome for d in rewrite(graph, "rule", rule)] == ["applied"]


@pytest.mark.parametrize("old", [13, 17, 18, 21])
def test_new_nodes_take_the_form_of_the_graphs_opset(old: int) -> None:
    def rule(node: gs.Node) -> Replace | Skip | None:
        if node.op != "GlobalAveragePool":
            return None
        attrs = {"axes": [2, 3], "keepdims": 1}
        new = New("ReduceMean", (node.inputs[0],), (node.outputs[0],), attrs)
        return Replace((node,), (new,), "mean")

    text = "g (float[N,4,6,5] x) => (float[N,4,1,1] y) { y = GlobalAveragePool(x) }"
    model = model_from(text, opset=old, ir=10)
    graph = to_graph(model)
    rewrite(graph, "rule", rule)
    after = to_model(graph, model, ())
    assert after.opset == old
    assert len(after.proto.graph.node[0].input) == (1 if old < 18 else 2)
    assert_same_numbers(model, after)


def test_weights_stay_where_they_are() -> None:
    model = model_from(
        "g (float[N,3,8,6] x) => (float[N,4,6,4] y) { y = Conv(x, w) }", {"w": weight(4, 3, 3, 3)}
    )
    after = raised(model, 20)
    assert isinstance(after, Model)
    assert_same_numbers(model, after, rtol=0)


def test_a_node_known_to_be_in_the_way_is_asked_first_and_forgotten_when_it_goes() -> None:
    graph = to_graph(one("a = Relu(x) y = Hardmax<axis=1>(a)", old=11))
    known: dict[int, gs.Node] = {}
    reasons = {raise_for(graph, 14, "HardSwish", (), known) for _ in range(2)}
    assert len(reasons) == 1
    hardmax = known[14]
    assert hardmax.op == "Hardmax"
    assert raise_for(graph, 14, "HardSwish", (hardmax,), known) is None
    assert graph.opset == 14


def test_a_known_node_may_have_been_rewritten() -> None:
    graph = to_graph(one("a = Relu(x) y = Hardmax<axis=1>(a)", old=11))
    known: dict[int, gs.Node] = {}
    assert raise_for(graph, 14, "HardSwish", (), known) is not None
    known[14].outputs.clear()
    graph.outputs = [graph.nodes[0].outputs[0]]
    graph.cleanup()
    assert raise_for(graph, 14, "HardSwish", (), known) is None
