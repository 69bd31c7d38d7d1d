"""FLOPs and bytes against hand-worked layers."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model_from
from onnx import TensorProto, helper
from tiny_models import conv, model, node, normal, quantized, residual

from deploy.analysis.graph_cost import graph_cost
from deploy.analysis.layer_cost import layer_costs
from deploy.artifacts.model import Model


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, "f4")


class TestWorkedExamples:
    """A 3x3 convolution and the bottleneck that replaces it (He et al. 2016), 56x56 maps."""

    def test_plain(self) -> None:
        network = model(
            [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
            {"x": ["N", 256, 56, 56]},
            {"y": ["N", 256, 56, 56]},
            {"w": zeros(256, 256, 3, 3)},
        )
        cost = graph_cost(network)
        assert cost.flops == 2 * 56 * 56 * 256 * 256 * 9
        assert cost.flops / 1e9 == pytest.approx(3.70, abs=0.005)
        assert cost.bytes == 4 * (2 * 256 * 56 * 56 + 256 * 256 * 9)
        assert cost.bytes / 1e6 == pytest.approx(8.78, abs=0.005)

    def test_bottleneck(self) -> None:
        network = model(
            [
                node("Conv", ["x", "a"], ["h"]),
                node("Conv", ["h", "b"], ["i"], pads=[1, 1, 1, 1]),
                node("Conv", ["i", "c"], ["y"]),
            ],
            {"x": ["N", 256, 56, 56]},
            {"y": ["N", 256, 56, 56]},
            {"a": zeros(64, 256, 1, 1), "b": zeros(64, 64, 3, 3), "c": zeros(256, 64, 1, 1)},
        )
        cost = graph_cost(network)
        assert cost.flops / 1e9 == pytest.approx(0.437, abs=0.0005)
        maps = (256 + 64) + (64 + 64) + (64 + 256)
        weights = 64 * 256 + 64 * 64 * 9 + 256 * 64
        assert cost.bytes == 4 * (maps * 56 * 56 + weights)
        assert cost.bytes / 1e6 == pytest.approx(9.91, abs=0.005)


def only(network: Model) -> tuple[int, int]:
    cost = graph_cost(network)
    assert cost.nodes == 1
    return cost.flops, cost.bytes


@pytest.mark.parametrize(
    "op, attributes, x, y, weights, flops",
    [
        ("Conv", {"group": 2}, ["N", 4, 5, 7], ["N", 6, 3, 5], [(6, 2, 3, 3)], 2 * 90 * 18),
        ("Conv", {"group": 4}, ["N", 4, 5, 7], ["N", 4, 3, 5], [(4, 1, 3, 3)], 2 * 60 * 9),
        ("ConvTranspose", {}, ["N", 4, 5, 7], ["N", 6, 6, 8], [(4, 6, 2, 2)], 2 * 140 * 24),
        ("Gemm", {}, ["N", 4], ["N", 6], [(4, 6), (6,)], 2 * 6 * 4),
        ("Gemm", {"transB": 1}, ["N", 4], ["N", 6], [(6, 4)], 2 * 6 * 4),
        ("Gemm", {"transA": 1}, [4, 3], [3, 6], [(4, 6)], 2 * 18 * 4),
        ("MatMul", {}, ["N", 5, 4], ["N", 5, 6], [(4, 6)], 2 * 30 * 4),
        ("Add", {}, ["N", 5, 4], ["N", 5, 4], [(4,)], 20),
        ("Relu", {}, ["N", 5, 4], ["N", 5, 4], [], 20),
        ("Atan", {}, ["N", 5, 4], ["N", 5, 4], [], 20),
        ("GlobalAveragePool", {}, ["N", 3, 5, 7], ["N", 3, 1, 1], [], 105),
        ("Transpose", {"perm": [0, 2, 1]}, ["N", 5, 4], ["N", 4, 5], [], 0),
    ],
)
def test_one_operator(
    op: str,
    attributes: dict[str, object],
    x: list[int | str],
    y: list[int | str],
    weights: list[tuple[int, ...]],
    flops: int,
) -> None:
    named = {f"w{i}": zeros(*shape) for i, shape in enumerate(weights)}
    network = model([node(op, ["x", *named], ["y"], **attributes)], {"x": x}, {"y": y}, named)
    sizes = [[d if isinstance(d, int) else 1 for d in shape] for shape in (x, y)]
    elements = sum(int(np.prod(s)) for s in sizes) + sum(w.size for w in named.values())
    assert only(network) == (flops, 4 * elements)


@pytest.mark.parametrize("op", ["Greater", "Equal"])
def test_a_comparison_is_elementwise(op: str) -> None:
    graph = f"g (float[N,5,4] x, float[4] k) => (bool[N,5,4] y) {{ y = {op}(x, k) }}"
    assert only(model_from(graph)) == (20, 4 * (20 + 4) + 20)


@pytest.mark.parametrize("past", [0, 3])
def test_attention_is_two_products(past: int) -> None:
    """Queries with keys of 8, weights with values of 6; 2 heads, 5 queries, 7 keys and `past`."""
    given = f", float[N,2,{past},8] c, float[N,2,{past},6] d" if past else ""
    cached = ', "", c, d' if past else ""
    graph = f"""
    g (float[N,2,5,8] q, float[N,2,7,8] k, float[N,2,7,6] v{given}) => (float[N,2,5,6] y) {{
        y = Attention(q, k, v{cached})
    }}
    """
    layers = layer_costs(model_from(graph, opset=23))
    assert [layer.flops for layer in layers.costs] == [2 * 2 * 5 * (7 + past) * (8 + 6)]
    assert layers.unknown == ()


def test_attention_whose_keys_lie_behind_each_other() -> None:
    graph = """
    g (float[N,5,16] q, float[N,7,16] k, float[N,7,12] v) => (float[N,5,12] y) {
        y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v)
    }
    """
    (layer,) = layer_costs(model_from(graph, opset=23)).costs
    assert layer.flops == 2 * 2 * 5 * 7 * (8 + 6)


@pytest.mark.parametrize(
    ("call", "known"),
    [
        ("com.microsoft.FusedMatMul(x, x)", False),
        ("com.microsoft.Attention(x, x, k)", False),
        ("com.microsoft.Gelu(x)", True),
        ("com.microsoft.Trilu(x)", True),
        ("DFT<axis=1>(x)", False),
        ("Trilu(x)", True),
    ],
)
def test_arithmetic_without_a_rule_is_named(call: str, known: bool) -> None:
    graph = f"g (float[4,4,1] x, float[4] k) => (float[A,B,C] y) {{ y = {call} }}"
    proto = model_from(graph).proto
    shape = ["A", 4, 1 if known else 2]
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    layers = layer_costs(Model(proto, "m"))
    assert [layer.op for layer in layers.costs] == [call.split("(")[0].split("<")[0].split(".")[-1]]
    assert len(layers.unknown) == (not known)


def test_what_only_relabels_a_shape_is_free() -> None:
    network = model([node("Flatten", ["x"], ["y"])], {"x": ["N", 3, 5, 7]}, {"y": ["N", 105]})
    assert only(network) == (0, 0)


def test_bytes_follow_the_type() -> None:
    network = model(
        [node("Cast", ["x"], ["y"], to=TensorProto.INT8)],
        {"x": ["N", 5]},
        {"y": (TensorProto.INT8, ["N", 5])},
    )
    assert only(network)[1] == 5 * 4 + 5


def test_totals() -> None:
    cost = graph_cost(residual())
    assert cost.nodes == 8
    assert cost.operators == {
        "Add": 1,
        "Conv": 2,
        "Flatten": 1,
        "Gemm": 1,
        "GlobalAveragePool": 1,
        "Relu": 2,
    }
    assert cost.parameters == 4 * 3 * 9 + 4 + 4 * 4 * 9 + 5 * 4 + 5
    assert cost.weight_bytes == 4 * cost.parameters


def test_a_shared_weight_is_stored_once_and_read_twice() -> None:
    network = model(
        [node("Gemm", ["x", "w"], ["h"]), node("Gemm", ["h", "w"], ["y"])],
        {"x": ["N", 4]},
        {"y": ["N", 4]},
        {"w": normal(4, 4)},
    )
    cost = graph_cost(network)
    assert (cost.parameters, cost.weight_bytes) == (16, 64)
    assert cost.bytes == 4 * (2 * 16 + 2 * 8)


def test_int8_weights_take_a_quarter() -> None:
    before, after = graph_cost(conv()), graph_cost(quantized(conv()))
    assert before.weight_bytes == 4 * (108 + 4)
    # 108 int8 weights; float32 bias; 4 weight scales and zero points; 2 x one activation pair
    assert after.weight_bytes == 108 + 16 + 4 * 5 + 2 * 5


@pytest.mark.parametrize(("dtype", "size"), [("INT4", 8), ("UINT4", 8), ("INT8", 15)])
def test_int4_weights_are_packed(dtype: str, size: int) -> None:
    """Two to a byte, the odd one in a byte of its own; beside a scale of 4 bytes."""
    body = "d = DequantizeLinear (w, s) y = MatMul (x, d)"
    network = model_from(f"g (float[2,5] x) => (float[2,3] y) {{ {body} }}", opset=21)
    numbers = helper.make_tensor("w", getattr(TensorProto, dtype), [5, 3], range(-7, 8))
    if dtype == "UINT4":
        numbers = helper.make_tensor("w", TensorProto.UINT4, [5, 3], range(15))
    scale = helper.make_tensor("s", TensorProto.FLOAT, [], [0.5])
    network.proto.graph.initializer.extend([numbers, scale])
    cost = graph_cost(network)
    assert (cost.parameters, cost.weight_bytes) == (15 + 1, size + 4)
    assert cost.bytes == 4 * (10 + 6) + size
