"""Where OpenVINO's Q/DQ goes, why some layers stay float, and that OpenVINO takes it as INT8."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_models import conv, model, node, normal, quantized, ranges_of, residual, samples_of

from deploy import registry
from deploy.artifacts.model import Model
from deploy.backends import ov
from deploy.metrics import sqnr_db
from deploy.placement import Placement, one_scale
from deploy.placements.openvino import openvino
from deploy.quantize import quantize
from deploy.surgery.graph import to_graph
from deploy.target import EngineSettings, Target

SETTINGS = EngineSettings(inference_precision={"int8": "f32", "fp32": "f32"})


def placed(model_: Model) -> Placement:
    return openvino(to_graph(model_))


def one(
    op: str,
    inputs: Mapping[str, list[int | str]],
    weights: Mapping[str, np.ndarray],
    output: list[int | str],
    **attributes: object,
) -> Model:
    """A model of one node that reads x (and x2), then w, then b, as far as they are given."""
    names = [n for n in ("x", "x2", "w", "b") if n in inputs or n in weights]
    return model([node(op, names, ["y"], name="it", **attributes)], inputs, {"y": output}, weights)


def reason(model_: Model) -> str:
    """Why the only node stays float."""
    found = placed(model_)
    assert found.activations == () and found.weights == ()
    (skipped,) = found.skipped
    assert (skipped.stage, skipped.rule, skipped.outcome) == ("quantize", "openvino", "skipped")
    assert skipped.subject == "it"
    return skipped.reason


def test_is_found_by_its_name() -> None:
    assert registry.load("placement", "openvino") is openvino


@pytest.mark.parametrize(
    "network, axis",
    [
        (one("Conv", {"x": ["N", 4, 5, 7]}, {"w": normal(6, 2, 3, 3)}, ["N", 6, 3, 5], group=2), 0),
        (one("Conv", {"x": ["N", 4, 9]}, {"w": normal(6, 4, 3)}, ["N", 6, 7]), 0),
        (one("ConvTranspose", {"x": ["N", 4, 5, 7]}, {"w": normal(4, 6, 2, 2)}, ["N", 6, 6, 8]), 1),
        (one("Gemm", {"x": ["N", 4]}, {"w": normal(4, 6), "b": normal(6)}, ["N", 6]), 1),
        (one("Gemm", {"x": ["N", 4]}, {"w": normal(6, 4)}, ["N", 6], transB=1), 0),
        (one("MatMul", {"x": ["N", 5, 4]}, {"w": normal(4, 6)}, ["N", 5, 6]), 1),
        (one("MatMul", {"x": ["N", 3, 5, 4]}, {"w": normal(3, 4, 6)}, ["N", 3, 5, 6]), 2),
        (one("MatMul", {"x": ["N", 4]}, {"w": normal(4)}, ["N"]), None),
    ],
    ids=lambda v: v.proto.graph.node[0].op_type if isinstance(v, Model) else str(v),
)
def test_data_and_weights_of_a_layer(network: Model, axis: int | None) -> None:
    found = placed(network)
    op = network.proto.graph.node[0].op_type
    assert [(a.node.name, a.index, a.reason) for a in found.activations] == [
        ("it", 0, f"input of {op}")
    ]
    assert [(w.node.name, w.index, w.axis) for w in found.weights] == [("it", 1, axis)]
    assert found.skipped == ()


def test_both_inputs_of_a_residual_add() -> None:
    found = placed(residual())
    adds = [(a.index, a.reason) for a in found.activations if a.node.op == "Add"]
    assert adds == [(0, "input of a residual Add"), (1, "input of a residual Add")]
    assert not found.skipped


def test_what_only_moves_data_is_left_alone() -> None:
    network = model(
        [node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2]), node("Relu", ["p"], ["y"])],
        {"x": ["N", 3, 5, 7]},
        {"y": ["N", 3, 4, 6]},
    )
    assert placed(network) == Placement((), (), ())


def shuffled() -> Model:
    """Two convolutions, split and joined crosswise, then read by two more."""
    halves = np.array([3, 5], np.int64)
    return model(
        [
            node("Conv", ["x", "v"], ["a"], name="first"),
            node("Split", ["a", "halves"], ["a0", "a1"], axis=1),
            node("Conv", ["x", "u"], ["b"], name="second"),
            node("Split", ["b", "halves"], ["b0", "b1"], axis=1),
            node("Concat", ["a0", "b1"], ["c"], axis=1),
            node("Concat", ["a1", "b0"], ["d"], axis=1),
            node("Conv", ["c", "w"], ["y"], name="third"),
            node("Conv", ["d", "w"], ["z"], name="fourth"),
        ],
        {"x": ["N", 6, 5, 7]},
        {"y": ["N", 4, 5, 7], "z": ["N", 4, 5, 7]},
        {
            "v": normal(8, 6, 1, 1),
            "u": normal(8, 6, 1, 1, seed=2),
            "w": normal(4, 8, 1, 1),
            "halves": halves,
        },
    )


class TestSharedScales:
    def test_what_holds_the_same_values_is_one_group(self) -> None:
        (group,) = one_scale(placed(shuffled()).shared)
        assert set(group.tensors) == {"c", "d"}
        assert group.reason == "they hold the same values, and move as uint8"

    def test_layers_that_compute_come_between(self) -> None:
        assert placed(residual()).shared == ()

    def test_and_everything_between_the_convolutions_is_uint8(self) -> None:
        network = shuffled()
        placed_ = quantize(network, ranges_of(network), Target.load("cpu"))
        with ov.build(placed_, SETTINGS, "int8") as engine:
            found = [(la.kind, la.precision) for la in engine.layers() if la.kind != "Reorder"]
        # the one Subgraph quantizes the input
        assert sorted(found) == [
            *[("Concatenation", "u8")] * 2,
            *[("Convolution", "u8")] * 4,
            *[("Split", "u8")] * 2,
            ("Subgraph", "f32"),
        ]


LEFT, RIGHT = {"x": ["N", 3, 5, 7]}, {"x2": ["N", 3, 5, 7]}


class TestSkips:
    def test_data_that_is_a_constant(self) -> None:
        network = model(
            [node("MatMul", ["w", "x"], ["y"], name="it")],
            {"x": [4, 5]},
            {"y": [6, 5]},
            {"w": normal(6, 4)},
        )
        assert reason(network) == "its data input is a constant"

    def test_two_constants(self) -> None:
        network = model(
            [node("MatMul", ["a", "b"], ["m"], name="it"), node("Relu", ["x"], ["y"])],
            {"x": ["N", 2]},
            {"y": ["N", 2], "m": [3, 3]},
            {"a": normal(3, 2), "b": normal(2, 3)},
        )
        assert reason(network) == "its data input is a constant"

    def test_attention_scores(self) -> None:
        network = one("MatMul", {"x": ["N", 5, 4], "x2": ["N", 4, 5]}, {}, ["N", 5, 5])
        assert reason(network) == (
            "both inputs are computed at run time (attention scores): no weights to quantize"
        )

    def test_weights_that_are_computed(self) -> None:
        network = model(
            [node("Relu", ["w"], ["r"]), node("Conv", ["x", "r"], ["y"], name="it")],
            {"x": ["N", 3, 5, 7], "w": [4, 3, 3, 3]},
            {"y": ["N", 4, 3, 5]},
        )
        assert "no weights to quantize" in reason(network)

    def test_weights_that_are_quantized_already(self) -> None:
        again = placed(quantized(conv()))
        assert again.activations == () and again.weights == ()
        assert [d.reason for d in again.skipped] == ["its weights are quantized already"]

    @pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
    def test_weights_that_are_not_float32(self, dtype: str) -> None:
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        network = model(
            [node("MatMul", ["x", "w"], ["y"], name="it")],
            {"x": (kind, ["N", 4])},
            {"y": (kind, ["N", 6])},
            {"w": normal(4, 6).astype(dtype)},
        )
        assert reason(network) == f"its weights are {dtype}; Q/DQ goes around float32 only"

    @pytest.mark.parametrize("name, value", [("alpha", 0.5), ("beta", 2.0)])
    def test_a_scaled_gemm(self, name: str, value: float) -> None:
        weights = {"w": normal(4, 6), "b": normal(6)}
        network = one("Gemm", {"x": ["N", 4]}, weights, ["N", 6], **{name: value})
        assert reason(network) == f"{name} = {value}: there is no integer kernel for such a Gemm"

    def test_a_transposed_gemm(self) -> None:
        network = one("Gemm", {"x": [4, 2]}, {"w": normal(4, 6)}, [2, 6], transA=1)
        assert reason(network) == "transA = 1: there is no integer kernel for such a Gemm"

    def test_a_grouped_transposed_convolution(self) -> None:
        network = one(
            "ConvTranspose",
            {"x": ["N", 4, 5, 7]},
            {"w": normal(4, 3, 2, 2)},
            ["N", 6, 6, 8],
            group=2,
        )
        assert reason(network) == "grouped ConvTranspose has no scale per output channel in ONNX"

    @pytest.mark.parametrize("first", [True, False])
    def test_adding_a_constant(self, first: bool) -> None:
        names = ["w", "x"] if first else ["x", "w"]
        network = model(
            [node("Add", names, ["y"], name="it")],
            LEFT,
            {"y": ["N", 3, 5, 7]},
            {"w": normal(1, 3, 5, 7)},
        )
        assert reason(network) == "adds a constant"

    def test_adding_a_value_to_itself(self) -> None:
        network = model([node("Add", ["x", "x"], ["y"], name="it")], LEFT, {"y": ["N", 3, 5, 7]})
        assert reason(network) == "adds a value to itself"

    @pytest.mark.parametrize(
        "other, output",
        [
            (["N", 3, 1, 1], ["N", 3, 5, 7]),
            (["N", 1, 5, 7], ["N", 3, 5, 7]),
            ([5, 7], ["N", 3, 5, 7]),
        ],
    )
    def test_a_broadcast(self, other: list[int | str], output: list[int | str]) -> None:
        network = one("Add", {**LEFT, "x2": other}, {}, output)
        assert "different or unknown shapes, so it isn't a residual Add" in reason(network)

    def test_shapes_that_are_not_known(self) -> None:
        free = ["N", "C", "H", "W"]
        network = one("Add", {"x": free, "x2": free}, {}, free)
        assert "different or unknown shapes" in reason(network)

    def test_a_transformers_residual_stream(self) -> None:
        shape: list[int | str] = ["N", 5, 4]
        network = one("Add", {"x": shape, "x2": shape}, {}, shape)
        assert reason(network).startswith("not a sum of feature maps")

    def test_integers(self) -> None:
        shape = (TensorProto.INT64, ["N", 3, 5, 7])
        network = model(
            [node("Add", ["x", "x2"], ["y"], name="it")], {"x": shape, "x2": shape}, {"y": shape}
        )
        assert reason(network) == "adds int64; Q/DQ goes around float32 only"


class TestOpenVinoRunsIt:
    def layers(self, network: Model, precision: str) -> list[tuple[str, str]]:
        """Kind and precision of everything that computes."""
        kinds = ("Convolution", "FullyConnected", "MatMul", "Eltwise", "Deconvolution")
        with ov.build(network, SETTINGS, precision) as engine:
            return [(la.kind, la.precision) for la in engine.layers() if la.kind in kinds]

    def test_a_convolution(self) -> None:
        assert self.layers(conv(), "fp32") == [("Convolution", "f32")]
        assert self.layers(quantized(conv()), "int8") == [("Convolution", "u8")]

    def test_convolutions_gemm_and_add_of_a_residual_net(self) -> None:
        found = self.layers(quantized(residual()), "int8")
        assert sorted(kind for kind, _ in found if kind != "Eltwise") == [
            "Convolution",
            "Convolution",
            "FullyConnected",
        ]
        # the Add is a layer of its own or a step of its convolution, but never in float
        assert {precision for _, precision in found} == {"u8"}

    def test_depthwise(self) -> None:
        network = model(
            [
                node("Conv", ["x", "v"], ["c"]),
                node("Relu", ["c"], ["r"]),
                node("Conv", ["r", "w"], ["y"], group=8, pads=[1, 1, 1, 1]),
            ],
            {"x": ["N", 8, 5, 7]},
            {"y": ["N", 8, 5, 7]},
            {"w": normal(8, 1, 3, 3), "v": normal(8, 8, 1, 1)},
        )
        assert self.layers(quantized(network), "int8") == [("Convolution", "u8")] * 2

    @pytest.mark.parametrize("groups, per_group", [(8, 1), (2, 4), (4, 2)])
    def test_weights_in_groups_stay_integers(
        self, groups: int, per_group: int, tmp_path: Path
    ) -> None:
        """OpenVINO's reader puts a Reshape behind weights in groups; it has to be folded."""
        network = model(
            [node("Relu", ["x"], ["r"]), node("Conv", ["r", "w"], ["y"], group=groups)],
            {"x": ["N", 8, 5, 7]},
            {"y": ["N", 8, 3, 5]},
            {"w": normal(8, per_group, 3, 3)},
        )
        with ov.build(quantized(network), SETTINGS, "int8") as engine:
            engine.save(tmp_path)
        with ov.load(tmp_path, SETTINGS, "int8") as engine:
            found = [la.precision for la in engine.layers() if la.kind == "Convolution"]
        assert found == ["u8"]

    @pytest.mark.parametrize("weights", [(4, 6), (3, 4, 6)])
    def test_matmul(self, weights: tuple[int, ...]) -> None:
        network = one("MatMul", {"x": [2, 3, 5, 4]}, {"w": normal(*weights)}, [2, 3, 5, 6])
        found = self.layers(quantized(network), "int8")
        assert [p for kind, p in found if kind in ("MatMul", "FullyConnected")] == ["u8"]

    def test_and_computes_what_the_float_network_does(self) -> None:
        network = residual()
        (sample,) = samples_of(network, 1)
        with (
            ov.build(network, SETTINGS, "fp32") as exact,
            ov.build(quantized(network), SETTINGS, "int8") as engine,
        ):
            quality = sqnr_db(exact.run(sample.feeds)["y"], engine.run(sample.feeds)["y"])
        assert 25 < quality < 80
