"""An older opset: written where every operator means the same there, refused with a name else."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from helpers import assert_same_numbers, model_from, weight

from deploy.artifacts.model import Model
from deploy.surgery.graph import to_graph, to_model
from deploy.surgery.lower_opset import lower_to

ENDS = "float[N,4,6] x) => (float[N,4,6] y"


def one(body: str, ends: str = ENDS, *, old: int, **weights: np.ndarray) -> Model:
    return model_from(f"g ({ends}) {{ {body} }}", weights, opset=old)


def lowered(model: Model, highest: int = 17) -> Model | str:
    """The model at that opset, or why it keeps its own."""
    graph = to_graph(model)
    reason = lower_to(graph, highest)
    return to_model(graph, model, ()) if reason is None else reason


@pytest.mark.parametrize(
    ("body", "old", "weights"),
    [
        ("y = Relu(x)", 18, {}),
        ("c = Conv<pads=[1,1]>(x, w) y = Relu(c)", 21, {"w": weight(4, 4, 3)}),
        ("y = Add(x, w)", 21, {"w": weight(4, 1)}),
        ("m = ReduceMean<keepdims=1>(x, axes) y = Sub(x, m)", 18, {"axes": np.array([-1])}),
        ("m = ReduceMean<keepdims=1>(x) y = Sub(x, m)", 18, {}),
        ("a, b = Split<axis=1, num_outputs=2>(x) y = Concat<axis=1>(b, a)", 18, {}),
        (
            "a, b = Split<axis=1>(x, sizes) y = Concat<axis=1>(b, a)",
            18,
            {"sizes": np.array([1, 3])},
        ),
        ("a = Transpose<perm=[0,2,1]>(x) y = Reshape(a, s)", 21, {"s": np.array([0, 4, 6])}),
    ],
)
def test_the_same_numbers_at_the_older_opset(
    body: str, old: int, weights: dict[str, np.ndarray]
) -> None:
    model = one(body, old=old, **weights)
    result = lowered(model)
    assert isinstance(result, Model), result
    assert result.opset == 17
    assert_same_numbers(model, result)


@pytest.mark.parametrize("opset", [13, 17])
def test_a_newer_opset_is_never_written(opset: int) -> None:
    graph = to_graph(one("y = Relu(x)", old=opset))
    assert lower_to(graph, 17) is None
    assert graph.opset == opset


def test_bodies_are_written_too() -> None:
    body = onnx.helper.make_graph(
        [
            onnx.helper.make_node("ReduceMax", ["x", "axes"], ["r"], keepdims=1),
            onnx.helper.make_node("Sub", ["x", "r"], ["z"]),
        ],
        "body",
        [],
        [onnx.helper.make_tensor_value_info("z", 1, ["N", 4, 6])],
    )
    model = one("y = Identity(x)", f"bool flag, {ENDS}", old=18, axes=np.array([2]))
    model.proto.graph.node[0].CopyFrom(
        onnx.helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body)
    )
    result = lowered(model)
    assert isinstance(result, Model), result
    assert_same_numbers(model, result)


class TestRefused:
    def test_functions_of_the_models_own(self) -> None:
        graph = to_graph(one("y = Relu(x)", old=18))
        graph.functions = [gs.Function("Own")]
        assert lower_to(graph, 17) == "the model's own functions are written for opset 18"
        assert graph.opset == 18

    def keeps(self, model: Model, reason: str) -> None:
        graph = to_graph(model)
        before = int(graph.opset)
        nodes = [(n.op, dict(n.attrs), len(n.inputs)) for n in graph.nodes]
        assert lower_to(graph, 17) == reason
        assert graph.opset == before
        assert [(n.op, dict(n.attrs), len(n.inputs)) for n in graph.nodes] == nodes

    def test_an_operator_that_begins_later(self) -> None:
        self.keeps(
            one("m = ReduceMean(x, a) y = Gelu(x)", old=20, a=np.array([1])),
            "Gelu ('Gelu -> y') begins with a later opset",
        )

    def test_axes_computed_at_run_time(self) -> None:
        self.keeps(
            one("y = ReduceMean(x, axes)", f"int64[1] axes, {ENDS}", old=18),
            "the axes of 'ReduceMean -> y' are computed at run time",
        )

    def test_a_reduction_that_does_nothing(self) -> None:
        self.keeps(
            one("y = ReduceMean<noop_with_empty_axes=1>(x)", old=18),
            "the axes of 'ReduceMean -> y' are computed at run time",
        )

    def test_a_split_of_unknown_sizes(self) -> None:
        ends = "float[N,C,6] x) => (float[N,D,6] y, float[N,E,6] z"
        self.keeps(
            one("y, z = Split<axis=1, num_outputs=2>(x)", ends, old=18),
            "the sizes of 'Split -> y' are not known",
        )

    def test_a_changed_meaning(self) -> None:
        self.keeps(
            one("y = Resize(x, , s)", old=19, s=np.ones(3, "f4")),
            "Resize ('Resize -> y') means something else there",
        )

    def test_a_border_that_was_settled_later(self) -> None:
        ends = "float[N,4,6] x) => (float[N,4,W] y"
        self.keeps(
            one("y = AveragePool<kernel_shape=[4], strides=[3], ceil_mode=1>(x)", ends, old=19),
            "AveragePool ('AveragePool -> y') means something else there",
        )

    def test_a_newer_attribute(self) -> None:
        self.keeps(
            one(
                "y = AveragePool<kernel_shape=[2], dilations=[2], pads=[1,1]>(x)",
                old=19,
            ),
            "AveragePool ('AveragePool -> y') has 'dilations', which is newer",
        )

    def test_a_newer_input(self) -> None:
        ends = "float[N,4,6] x) => (float[N,4,8] y"
        weights = {"p": np.array([1, 1]), "v": np.float32(0), "a": np.array([2])}
        self.keeps(
            one("y = Pad(x, p, v, a)", ends, old=18, **weights),
            "Pad ('Pad -> y') has 4 inputs, which is newer",
        )

    def test_a_newer_mode(self) -> None:
        ends = "float[N,4,6] x) => (float[N,4,8] y"
        self.keeps(
            one('y = Pad<mode="wrap">(x, p)', ends, old=19, p=np.array([0, 0, 1, 0, 0, 1])),
            "Pad ('Pad -> y') has the mode 'wrap', which is newer",
        )
