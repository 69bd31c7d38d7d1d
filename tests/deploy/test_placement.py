"""What a layer is called, what an exclusion leaves, and which tensors get one scale."""

from __future__ import annotations

import re

import numpy as np
import pytest
from dialects import dialect, parsed
from helpers import model_from
from tiny_models import model, node, normal, ranges_of, residual

from deploy.artifacts.model import Model
from deploy.errors import CalibrationError, RecipeError
from deploy.layer_kinds import first_and_last, kinds
from deploy.placement import Exclude, SharedScale, one_scale, without
from deploy.placements.onnxruntime import onnxruntime
from deploy.placements.openvino import openvino
from deploy.quantizable import same_values
from deploy.quantize import quantize
from deploy.surgery.graph import infer, label, to_graph

MAP = ["N", 4, 6, 8]


def shuffle() -> Model:
    """first -> depthwise -> (squeezed, pointwise) -> grouped -> up; every kind of convolution."""
    nodes = [
        node("Conv", ["x", "w0"], ["a"], name="first", pads=[1, 1, 1, 1]),
        node("Conv", ["a", "wd"], ["b"], name="deep", group=4, pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["b"], ["p"], name="pool"),
        node("Conv", ["p", "w1"], ["e"], name="gate"),
        node("Sigmoid", ["e"], ["s"], name="sigmoid"),
        node("Mul", ["b", "s"], ["m"], name="scale"),
        node("Conv", ["m", "w1"], ["c"], name="point"),
        node("Conv", ["c", "wg"], ["g"], name="two", group=2),
        node("ConvTranspose", ["g", "w2"], ["y"], name="up", strides=[2, 2]),
    ]
    weights = {
        "w0": normal(4, 3, 3, 3),
        "wd": normal(4, 1, 3, 3),
        "w1": normal(4, 4, 1, 1),
        "wg": normal(4, 2, 1, 1),
        "w2": normal(4, 4, 2, 2),
    }
    return model(nodes, {"x": ["N", 3, 6, 8]}, {"y": ["N", 4, 12, 16]}, weights)


class TestKinds:
    def test_of_every_layer(self) -> None:
        found = {label(n): kinds(n) for n in to_graph(shuffle()).nodes}
        assert found == {
            "first": ["Conv", "Conv:spatial"],
            "deep": ["Conv", "Conv:depthwise", "Conv:excited"],
            "pool": ["GlobalAveragePool"],
            "gate": ["Conv", "Conv:pointwise", "Conv:squeezed"],
            "sigmoid": ["Sigmoid"],
            "scale": ["Mul"],
            "point": ["Conv", "Conv:pointwise"],
            "two": ["Conv", "Conv:grouped"],
            "up": ["ConvTranspose", "ConvTranspose:spatial"],
        }

    def test_of_a_map_of_unknown_size(self) -> None:
        graph = to_graph(shuffle())
        point = next(n for n in graph.nodes if n.name == "point")
        for shape in (None, ["N", 4, "H", 1]):
            point.inputs[0].shape = shape
            assert kinds(point) == ["Conv", "Conv:pointwise"]

    @pytest.mark.parametrize(
        "activation, found",
        [
            ("a = Relu(c)", True),
            ("a = HardSwish(c)", True),
            ("s = Sigmoid(c) a = Mul(c, s)", True),
            ("n = Neg(c) e = Exp(n) o = Add(e, one) a = Div(c, o)", True),
            ("i = Identity(c) j = Identity(i) k = Identity(j) l = Identity(k) a = Relu(l)", False),
            ("a = MaxPool<kernel_shape=[1,1]>(c)", False),
        ],
    )
    def test_excited_through_an_activation(self, activation: str, found: bool) -> None:
        text = "g (float[N,4,6,8] x) => (float[N,4,6,8] y) { c = Conv<group=4>(x, wd) "
        text += f"{activation} p = GlobalAveragePool(a) g = Sigmoid(p) y = Mul(a, g) }}"
        values = {"wd": normal(4, 1, 1, 1), "one": np.float32(1)}
        made = model_from(text, {n: v for n, v in values.items() if f" {n})" in text})
        (conv,) = (n for n in to_graph(Model(infer(made.proto), "m")).nodes if n.op == "Conv")
        assert ("Conv:excited" in kinds(conv)) is found

    def test_scaling_by_a_map_or_of_another_map_excites_nothing(self) -> None:
        for scaled in ("y = Mul(c, x)", "p = GlobalAveragePool(c) y = Mul(x, p)"):
            text = "g (float[N,4,6,8] x) => (float[N,4,6,8] y) { c = Conv<group=4>(x, wd) "
            text += f"{scaled} }}"
            made = model_from(text, {"wd": normal(4, 1, 1, 1)})
            (conv,) = (n for n in to_graph(Model(infer(made.proto), "m")).nodes if n.op == "Conv")
            assert "Conv:excited" not in kinds(conv)

    def test_ends(self) -> None:
        layers = [n for n in to_graph(shuffle()).nodes if n.op.startswith("Conv")]
        found = first_and_last(layers)
        ends = {label(n): found[id(n)] for n in layers if found[id(n)]}
        assert ends == {"first": ["first"], "up": ["last"]}

    def test_a_single_layer_is_both(self) -> None:
        layers = [n for n in to_graph(residual()).nodes if n.name == "conv1"]
        assert list(first_and_last(layers).values()) == [["first", "last"]]

    def test_a_model_of_two_heads_has_two_last_layers(self) -> None:
        network = model(
            [
                node("Conv", ["x", "w"], ["a"], name="body"),
                node("Conv", ["a", "w"], ["y"], name="one"),
                node("Conv", ["a", "w"], ["z"], name="two"),
            ],
            {"x": MAP},
            {"y": MAP, "z": MAP},
            {"w": normal(4, 4, 1, 1)},
        )
        layers = list(to_graph(network).nodes)
        found = first_and_last(layers)
        assert [found[id(n)] for n in layers] == [["first"], ["last"], ["last"]]


class TestExclude:
    @pytest.mark.parametrize(
        ("exclude", "left"),
        [
            (Exclude(layers={"two": "why"}), ["two"]),
            (Exclude(kinds={"Conv:depthwise": "why"}), ["deep"]),
            (Exclude(kinds={"Conv:squeezed": "why"}), ["gate"]),
            (Exclude(kinds={"Conv:pointwise": "why"}), ["gate", "point"]),
            (Exclude(kinds={"first": "why", "last": "why"}), ["first", "up"]),
            (Exclude(kinds={"ConvTranspose": "why"}), ["up"]),
            (Exclude(tensors={"b": "why"}), []),
            (Exclude(tensors={"c": "why"}), ["two"]),
            (Exclude(tensors={"w1": "why"}), ["gate", "point"]),
            (Exclude(kinds={"Softmax": "why"}), []),
        ],
    )
    def test_what_goes(self, exclude: Exclude, left: list[str]) -> None:
        found = openvino(to_graph(shuffle()))
        rest = without(found, exclude)
        gone = [d for d in rest.skipped if d.rule == "exclude"]
        assert [(d.stage, d.outcome, d.subject, d.reason) for d in gone] == [
            ("quantize", "skipped", name, "why") for name in left
        ]
        kept = {label(n) for n in found.layers} - set(left)
        assert {label(n) for n in rest.layers} == kept
        assert {label(w.node) for w in rest.weights} == kept

    def test_nothing_excluded_is_the_same_placement(self) -> None:
        found = openvino(to_graph(shuffle()))
        assert without(found, Exclude()) is found

    def test_both_inputs_of_a_sum_go_together(self) -> None:
        network = residual()
        made = quantize(
            network, ranges_of(network), dialect("openvino"), exclude=Exclude(tensors={"c2": "it"})
        )
        assert parsed(made).activations.keys() == {"x", "r1", "f"}
        (add,) = [n for n in made.proto.graph.node if n.op_type == "Add"]
        assert list(add.input) == ["r1", "c2"]

    def test_a_layer_goes_with_what_its_result_needed(self) -> None:
        # ONNX Runtime quantizes c2 as the result of conv2 and as an input of the sum
        found = onnxruntime(to_graph(residual()))
        rest = without(
            found, Exclude(dict.fromkeys(("conv1", "conv2", "add", "pool", "flatten"), ""))
        )
        assert {a.tensor.name for a in rest.activations} == {"f"}

    def test_an_excluded_reader_of_a_quantized_result_still_reads_it(self) -> None:
        found = onnxruntime(to_graph(residual()))
        rest = without(found, Exclude(layers={"add": "noisy"}))
        owners = {(a.tensor.name, label(a.layer)) for a in rest.activations}
        assert ("c2", "conv2") in owners and ("c2", "add") not in owners

    def test_shared_scales_dissolve_with_their_tensors(self) -> None:
        graph = to_graph(
            model(
                [
                    node("Relu", ["x"], ["r"]),
                    node("Transpose", ["r"], ["t"], perm=[0, 1, 3, 2]),
                    node("Conv", ["r", "w"], ["y"], name="one"),
                    node("Conv", ["t", "w"], ["z"], name="two"),
                ],
                {"x": MAP},
                {"y": MAP, "z": ["N", 4, 8, 6]},
                {"w": normal(4, 4, 1, 1)},
            )
        )
        from deploy.placements.tensorrt import tensorrt

        found = tensorrt(graph)
        assert [g.tensors for g in found.shared] == [("r", "t")]
        assert without(found, Exclude(layers={"two": ""})).shared == ()
        assert without(found, Exclude(kinds={"Add": ""})).shared == found.shared

    def test_everything(self) -> None:
        network = residual()
        every = Exclude(kinds=dict.fromkeys(("Conv", "Gemm", "Add"), "all of it"))
        with pytest.raises(CalibrationError, match="nothing to quantize in 8 nodes: all of it"):
            quantize(network, ranges_of(network), dialect("openvino"), exclude=every)

    @pytest.mark.parametrize(
        ("exclude", "message"),
        [
            (
                Exclude(layers={"conv9": ""}),
                "no layer 'conv9' to leave in float (did you mean 'conv",
            ),
            (Exclude(tensors={"nothing": ""}), "no tensor 'nothing' to leave in float"),
            (Exclude(kinds={"Conv:deep": ""}), "no kind 'Conv:deep' to leave in float"),
            (Exclude(kinds={"Convolution": ""}), "name an operator or first, last, Conv:depthwise"),
        ],
    )
    def test_of_something_that_is_not_there(self, exclude: Exclude, message: str) -> None:
        network = residual()
        with pytest.raises(RecipeError, match=re.escape(message)):
            quantize(network, ranges_of(network), dialect("openvino"), exclude=exclude)

    def test_two_together(self) -> None:
        one = Exclude(layers={"a": "first"}, kinds={"Add": "slow"})
        both = one.also(Exclude(layers={"a": "second", "b": "second"}, tensors={"t": "noisy"}))
        assert both == Exclude({"a": "first", "b": "second"}, {"t": "noisy"}, {"Add": "slow"})


class TestOneScale:
    def test_groups_with_a_tensor_in_common_become_one(self) -> None:
        groups = [("a", "b"), ("c", "d"), ("e", "f"), ("d", "g"), ("b", "c")]
        found = one_scale(SharedScale(names, names[0]) for names in groups)
        assert [g.tensors for g in found] == [("a", "b", "c", "d", "g"), ("e", "f")]
        assert [g.reason for g in found] == ["a", "e"]

    def test_none(self) -> None:
        assert one_scale(()) == []

    def test_values_that_are_only_moved(self) -> None:
        network = model(
            [
                node("Concat", ["x", "z"], ["j"], axis=1),
                node("Split", ["j"], ["a", "b"], axis=1),
                node("Reshape", ["a", "shape"], ["c"]),
                node("Relu", ["b"], ["d"]),
                node("MaxPool", ["d"], ["y"], kernel_shape=[3, 3]),
                node("Relu", ["c"], ["u"]),
            ],
            {"x": MAP, "z": MAP},
            {"y": ["N", 4, 4, 6], "u": ["M", 6]},
            {"shape": np.array([-1, 6])},
        )
        nodes = to_graph(network).nodes

        def groups(*names: str) -> list[tuple[str, ...]]:
            return [g.tensors for g in one_scale(same_values(nodes, names, "moved"))]

        assert groups("x", "z") == []
        assert groups("x", "z", "j") == [("x", "j", "z")]
        assert groups("c", "b", "x") == [("c", "b", "x")]
        assert groups("b", "d") == []
        assert groups("d", "y", "c") == [("d", "y")]
