"""Where TensorRT has FP8 kernels: one test per reason to stay float."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import model, node, normal

from deploy.artifacts.model import Model
from deploy.placements.tensorrt_float8 import tensorrt_float8
from deploy.surgery.graph import label, to_graph


def one_conv(channels: int, outputs: int, kernel: int = 3, **attrs: object) -> Model:
    groups = int(attrs.get("group", 1))  # type: ignore[call-overload]
    pads = [kernel // 2] * 4
    return model(
        [node("Conv", ["x", "w"], ["y"], name="conv", pads=pads, **attrs)],
        {"x": ["N", channels, 9, 8]},
        {"y": ["N", outputs, 9, 8]},
        {"w": normal(outputs, channels // groups, kernel, kernel)},
    )


def reason(found: Model) -> str:
    (skipped,) = tensorrt_float8(to_graph(found)).skipped
    return skipped.reason


def test_a_plain_convolution_is_taken() -> None:
    found = tensorrt_float8(to_graph(one_conv(16, 32, 5)))
    assert [label(n) for n in found.layers] == ["conv"] and not found.skipped
    assert [w.axis for w in found.weights] == [0]


@pytest.mark.parametrize(
    "network, expected",
    [
        (one_conv(32, 32, group=32), "a grouped convolution: TensorRT has no optimized FP8 kernel"),
        (one_conv(32, 32, group=2), "a grouped convolution: TensorRT has no optimized FP8 kernel"),
        (one_conv(16, 16, 7), "a 7x7 kernel: TensorRT's FP8 convolutions take 32 elements"),
        (one_conv(3, 16), "Conv of 3 channels: FP8 needs 16 on both sides"),
        (one_conv(16, 10), "Conv of 10 channels: FP8 needs 16 on both sides"),
    ],
)
def test_stays_float(network: Model, expected: str) -> None:
    assert reason(network).startswith(expected)


def test_a_transposed_convolution_stays_float() -> None:
    network = model(
        [node("ConvTranspose", ["x", "w"], ["y"], name="up", strides=[2, 2])],
        {"x": ["N", 16, 4, 5]},
        {"y": ["N", 16, 8, 10]},
        {"w": normal(16, 16, 2, 2)},
    )
    assert reason(network) == "a transposed convolution, which NVIDIA doesn't offer in FP8"


@pytest.mark.parametrize("outputs, taken", [(16, True), (10, False)])
def test_matrix_products(outputs: int, taken: bool) -> None:
    network = model(
        [node("MatMul", ["x", "w"], ["y"], name="product")],
        {"x": ["N", 24]},
        {"y": ["N", outputs]},
        {"w": normal(24, outputs)},
    )
    found = tensorrt_float8(to_graph(network))
    assert bool(found.weights) is taken
    assert taken or found.skipped[0].reason == "MatMul of 10 channels: FP8 needs 16 on both sides"


def sum_behind(groups: int) -> Model:
    """x -> conv -> Add(x)"""
    return model(
        [
            node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4, group=groups),
            node("Add", ["c", "x"], ["y"], name="sum"),
        ],
        {"x": ["N", 16, 6, 5]},
        {"y": ["N", 16, 6, 5]},
        {"w": normal(16, 16 // groups, 3, 3)},
    )


def test_a_sum_reads_float8_where_its_convolution_does() -> None:
    found = tensorrt_float8(to_graph(sum_behind(1)))
    assert [(label(a.node), a.tensor.name) for a in found.activations] == [
        ("conv", "x"),
        ("sum", "x"),
    ]


def test_a_sum_behind_a_float_convolution_stays_float() -> None:
    found = tensorrt_float8(to_graph(sum_behind(16)))
    assert not found.activations
    told = {d.subject: d.reason for d in found.skipped}
    assert told["sum"] == "no FP8 convolution in front of it takes the sum in"


def test_values_that_meet_in_a_concat_share_a_scale() -> None:
    network = model(
        [
            node("Concat", ["a", "b"], ["j"], axis=1),
            node("Conv", ["j", "w"], ["y"], name="conv"),
            node("Conv", ["a", "v"], ["z"], name="other"),
        ],
        {"a": ["N", 16, 4, 5], "b": ["N", 16, 4, 5]},
        {"y": ["N", 16, 4, 5], "z": ["N", 16, 4, 5]},
        {"w": normal(16, 32, 1, 1), "v": normal(16, 16, 1, 1)},
    )
    (group,) = tensorrt_float8(to_graph(network)).shared
    assert group.tensors == ("j", "a") and np.all([group.reason])
