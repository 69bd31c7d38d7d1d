"""16 bits between INT8 layers: where, where not and why, and the numbers that come out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from dialects import dialect
from helpers import MODELS, feeds_for, ops, run
from onnx import TensorProto, numpy_helper
from tiny_models import model, node, normal, ranges_of, residual, samples_of

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.calibrate import calibrate
from deploy.errors import RecipeError
from deploy.floats.half_rest import half_rest
from deploy.metrics import sqnr_db
from deploy.placement import Exclude
from deploy.quantize import quantize

TARGET = dialect("tensorrt")


def shipped(network: Model, **kinds: str) -> Model:
    return quantize(network, ranges_of(network), TARGET, exclude=Exclude(kinds=kinds))


def layers(
    between: list[onnx.NodeProto], last: str, *, channels: int = 4, **weights: np.ndarray
) -> Model:
    """conv1 -> relu1 -> `between` (from r1 to `last`) -> conv2, on float32[1, 3, 6, 8]."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        *between,
        node("Conv", [last, "w2"], ["y"], name="conv2"),
    ]
    mine = {
        "w1": normal(4, 3, 3, 3, seed=1, scale=0.3),
        "b1": normal(4, seed=2),
        "w2": normal(5, channels, 1, 1, seed=3, scale=0.3),
    }
    return model(nodes, {"x": [1, 3, 6, 8]}, {"y": [1, 5, None, None]}, mine | weights)


def types(made: Model) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(made.proto, strict_mode=True).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    return known | {i.name: i.data_type for i in graph.initializer}


def narrow(made: Model, kind: int = TensorProto.FLOAT16) -> list[str]:
    """The nodes that compute in 16 bits."""
    known = types(made)
    return [
        n.name
        for n in made.proto.graph.node
        if n.op_type != "Cast" and any(known.get(o) == kind for o in n.output)
    ]


def reasons(made: Model) -> dict[str, str]:
    return {d.subject: d.reason for d in made.decisions if d.outcome == "skipped"}


def quantizers(made: Model) -> list[tuple[str, bytes, bytes]]:
    """Every Q/DQ with what its scale and its zero point are."""
    stored = {i.name: numpy_helper.to_array(i) for i in made.proto.graph.initializer}
    return sorted(
        (n.name, stored[n.input[1]].tobytes(), stored[n.input[2]].tobytes())
        for n in made.proto.graph.node
        if n.op_type.endswith("QuantizeLinear") or n.op_type == "DequantizeLinear"
    )


POOLED = layers([node("AveragePool", ["r1"], ["p"], name="pool", kernel_shape=[3, 3])], "p")


class TestStored:
    def test_a_pool_between_int8_layers(self) -> None:
        before = shipped(POOLED)
        made = half_rest(before, "fp16")
        assert narrow(made) == ["relu1", "pool"]
        casts = [n.input[0] for n in made.proto.graph.node if n.op_type == "Cast"]
        assert casts == ["c1", "p"]
        assert quantizers(made) == quantizers(before)
        (applied,) = (d for d in made.decisions if d.outcome == "applied")
        assert applied.stage == "half_rest"
        assert applied.reason == (
            "2 nodes in float16, 2 casts, 0 kept in float32; INT8 layers keep float32 scales"
        )

    def test_int8_layers_read_what_they_read_before(self) -> None:
        before, made = shipped(POOLED), half_rest(shipped(POOLED), "fp16")
        for graph in (before.proto.graph, made.proto.graph):
            makers = {o: n for n in graph.node for o in n.output}
            for conv in (n for n in graph.node if n.op_type == "Conv"):
                assert [makers[i].op_type for i in conv.input[:2]] == ["DequantizeLinear"] * 2
        assert {types(made)[name] for name in ("c1", "y")} == {TensorProto.FLOAT}

    def test_a_float_layer_with_its_weights(self) -> None:
        depthwise = node("Conv", ["r1", "w3"], ["d"], name="depthwise", group=4)
        network = layers([depthwise], "d", w3=normal(4, 1, 3, 3, seed=7))
        made = half_rest(shipped(network, **{"Conv:depthwise": "measured"}), "fp16")
        assert narrow(made) == ["relu1", "depthwise"]
        assert types(made)["w3/float16"] == TensorProto.FLOAT16
        assert "w3" not in types(made)

    def test_a_value_read_as_integers_and_as_a_float(self) -> None:
        made = half_rest(shipped(residual(1), Add="measured"), "fp16")
        # r1 is quantized for conv2, and kept for the sum
        assert {"relu1", "add"} <= set(narrow(made))

    def test_inputs_and_outputs_stay_float32(self) -> None:
        network = model(
            [
                node("Conv", ["x", "w"], ["c"], name="conv"),
                node("AveragePool", ["c"], ["y"], name="pool", kernel_shape=[2, 2]),
                node("MaxPool", ["x"], ["z"], name="own", kernel_shape=[2, 2]),
            ],
            {"x": [1, 3, 5, 7]},
            {"y": [1, 4, 2, 4], "z": [1, 3, 4, 6]},
            {"w": normal(4, 3, 3, 3)},
        )
        made = half_rest(shipped(network), "fp16")
        assert [str(s) for s in made.inputs] == [str(s) for s in network.inputs]
        assert [str(s) for s in made.outputs] == [str(s) for s in network.outputs]
        assert "pool" in narrow(made)

    def test_bfloat16_in_an_opset_that_has_it(self) -> None:
        made = half_rest(shipped(POOLED), "bf16")
        assert made.opset == 22
        assert narrow(made, TensorProto.BFLOAT16) == ["relu1", "pool"]
        assert quantizers(made) == quantizers(shipped(POOLED))


class TestLeftAlone:
    def test_what_is_computed_within_an_int8_layers_kernel(self) -> None:
        before = shipped(layers([], "r1"))
        made = half_rest(before, "fp16")
        assert ops(made) == ops(before)
        assert reasons(made) == {
            "tiny": "no value between INT8 layers is stored as a float that float16 would halve"
        }

    @pytest.mark.parametrize(
        "mover",
        [
            node("MaxPool", ["r1"], ["m"], name="moved", kernel_shape=[2, 2]),
            node("Transpose", ["r1"], ["m"], name="moved", perm=[0, 1, 3, 2]),
        ],
    )
    def test_what_moves_integers(self, mover: onnx.NodeProto) -> None:
        # its input is quantized for conv3 as well, with the scale of its output
        network = layers([mover, node("Conv", ["r1", "w3"], ["z"], name="conv3")], "m", w3=W3)
        network.proto.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, None))
        before = shipped(network)
        hoisted = quantize(
            network,
            ranges_of(network),
            TARGET.model_copy(update={"quantized_fusions": ("hoist_quantize",)}),
        )
        for graph in (before, hoisted):
            assert ops(half_rest(graph, "fp16")) == ops(graph)

    def test_a_pool_of_integers(self) -> None:
        pooled = node("AveragePool", ["r1"], ["p"], name="pool", kernel_shape=[3, 3])
        also = node("Conv", ["r1", "w3"], ["z"], name="conv3")
        network = layers([pooled, also], "p", w3=W3)
        network.proto.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, None))
        before = shipped(network)
        makers = {o: n.op_type for n in before.proto.graph.node for o in n.output}
        (pool,) = (n for n in before.proto.graph.node if n.name == "pool")
        assert makers[pool.input[0]] == "DequantizeLinear"
        assert ops(half_rest(before, "fp16")) == ops(before)

    def test_what_16_bits_cannot_hold(self) -> None:
        soft = node("Softmax", ["r1"], ["s"], name="softmax", axis=1)
        made = half_rest(shipped(layers([soft], "s")), "fp16")
        assert narrow(made) == []
        assert reasons(made)["softmax"] == "Softmax sums over an axis"

    def test_without_a_range_what_may_grow(self) -> None:
        between = [
            node("AveragePool", ["r1"], ["p"], name="pool", kernel_shape=[3, 3]),
            node("Exp", ["p"], ["e"], name="exp"),
        ]
        network = layers(between, "e")
        made = half_rest(shipped(network), "fp16")
        assert "pool" in narrow(made)
        assert reasons(made)["exp"].startswith("Exp can leave the range of float16, and no ranges")
        # the ranges of the float graph know these values by name
        known = half_rest(shipped(network), "fp16", ranges=ranges_of(network))
        assert {"pool", "exp"} <= set(narrow(known))
        assert reasons(known) == {}

    def test_the_model_that_came_in(self) -> None:
        before = shipped(POOLED)
        serialized = before.serialized
        half_rest(before, "fp16")
        assert before.proto.SerializeToString(deterministic=True) == serialized


W3 = normal(4, 4, 1, 1, seed=8)


def test_another_precision() -> None:
    with pytest.raises(RecipeError, match="precision 'fp32'; the rest becomes fp16 or bf16"):
        half_rest(shipped(POOLED), "fp32")


def test_the_numbers_of_the_graph_with_a_float32_rest() -> None:
    before = shipped(POOLED)
    made = half_rest(before, "fp16")
    got, expected = [], []
    for sample in samples_of(before, 16):
        expected.append(run(before, sample.feeds)["y"])
        got.append(run(made, sample.feeds)["y"])
    # float16 keeps 11 bits: here and there a value is rounded to the neighbouring integer
    assert sqnr_db(np.stack(expected), np.stack(got)) > 35


@pytest.mark.skipif(not MODELS.is_dir(), reason="needs ../shared/assets/models")
@pytest.mark.parametrize(
    ("name", "least_db"),
    [("resnet20_cifar10", 40), ("shufflenetv1_0.5g3_cifar10", 24), ("dscnn_kws", 40)],
)
def test_real_models(name: str, least_db: float) -> None:
    from deploy.load import load, read
    from deploy.simplify import simplify

    network = simplify(load(read(MODELS / f"{name}.onnx")))
    samples = [Sample(str(i), feeds_for(network, batch=1, seed=i)) for i in range(4)]
    before = quantize(network, calibrate(network, samples, "minmax"), TARGET)
    made = half_rest(before, "fp16")
    assert quantizers(made) == quantizers(before)
    expected, got = (
        np.stack([next(iter(run(m, s.feeds).values())) for s in samples]) for m in (before, made)
    )
    assert sqnr_db(expected, got) > least_db
