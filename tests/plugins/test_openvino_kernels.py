"""The OpenVINO extensions, compiled here: kernel == NumPy truth, and what they refuse."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from deploy import registry
from deploy.artifacts.model import Model
from deploy.backends import ov
from deploy.errors import BuildError, MissingBackendError
from deploy.plugin.build import build_openvino
from deploy.plugin.check import node_model
from deploy.target import EngineSettings

SETTINGS = EngineSettings(batch="dynamic", inference_precision={"fp32": "f32", "bf16": "bf16"})


@pytest.fixture(autouse=True, scope="module")
def _compiler(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        build_openvino("channel_shuffle", tmp_path_factory.mktemp("probe"))
    except MissingBackendError as error:
        pytest.skip(f"OpenVINO extensions can't be compiled here: {error}")


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(dtype)


def assert_kernel(
    name: str,
    arrays: list[np.ndarray | None],
    attributes: dict[str, Any],
    *,
    rtol: float = 1e-5,
    atol_lsb: int = 0,
    precision: str = "fp32",
) -> None:
    """What the extension computes in an engine is what run() says."""
    truth = registry.module("plugin", name).run(*arrays, **attributes)
    model = node_model(name, arrays, attributes, truth.ndim)
    with ov.build(model, SETTINGS, precision) as engine:
        assert name in [lib.plugin for lib in engine._libraries]
        got = engine.run({"i0": np.asarray(arrays[0])})["y"]
    assert (got.shape, got.dtype) == (truth.shape, truth.dtype)
    if truth.dtype.kind == "i":
        off = np.abs(got.astype(int) - truth.astype(int))
        assert off.max() <= atol_lsb
        assert (off > 0).mean() < 0.01
    else:
        scale = float(np.abs(truth.astype(np.float64)).max())
        np.testing.assert_allclose(got, truth, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int8", "uint8"])
@pytest.mark.parametrize(("channels", "groups"), [(5, 1), (5, 5), (12, 3), (58, 2)])
def test_channel_shuffle(dtype: str, channels: int, groups: int) -> None:
    x = (normal(2, channels, 3, 7) * 50).astype(dtype)
    assert_kernel("channel_shuffle", [x], {"groups": groups}, rtol=0)


@pytest.mark.parametrize("shape", [(3, 12), (2, 12, 5), (1, 12, 3, 4, 2)])
def test_channel_shuffle_of_any_rank(shape: tuple[int, ...]) -> None:
    assert_kernel("channel_shuffle", [normal(*shape)], {"groups": 4}, rtol=0)


DEPTHWISE = [
    (channels, groups, size, kernel, stride)
    for ((channels, groups), size, kernel, stride) in itertools.product(
        [(7, 1), (7, 7), (12, 3), (10, 5)], [(7, 5), (5, 18), (16, 33)], [3, 5], [1, 2]
    )
]


@pytest.mark.parametrize(("channels", "groups", "size", "kernel", "stride"), DEPTHWISE)
def test_shuffle_depthwise(
    channels: int, groups: int, size: tuple[int, int], kernel: int, stride: int
) -> None:
    half = kernel // 2
    arrays = [normal(2, channels, *size), normal(channels, 1, kernel, kernel), normal(channels)]
    attributes = {
        "groups": groups,
        "strides": [stride] * 2,
        "pads": [half] * 4,
        "activation": "Relu" if channels == 12 else "",
    }
    assert_kernel("shuffle_depthwise", list(arrays), attributes)


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [0, 1, 2, 0], [2, 0, 1, 2]])
@pytest.mark.parametrize("stride", [1, 2])
def test_shuffle_depthwise_with_uneven_pads(pads: list[int], stride: int) -> None:
    arrays = [normal(1, 6, 9, 14), normal(6, 1, 5, 5)]
    attributes = {"groups": 2, "strides": [stride] * 2, "pads": pads}
    assert_kernel("shuffle_depthwise", list(arrays), attributes)


def test_shuffle_depthwise_in_float16() -> None:
    arrays = [normal(2, 12, 7, 5, dtype="float16"), normal(12, 1, 3, 3, dtype="float16")]
    assert_kernel("shuffle_depthwise", list(arrays), {"groups": 3, "pads": [1] * 4}, rtol=2e-3)


def test_shuffle_depthwise_in_a_bf16_engine() -> None:
    arrays = [normal(2, 12, 7, 5), normal(12, 1, 3, 3)]
    attributes = {"groups": 3, "pads": [1] * 4}
    assert_kernel("shuffle_depthwise", list(arrays), attributes, rtol=1e-2, precision="bf16")


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("activation", ["", "Relu"])
def test_shuffle_depthwise_in_int8(kernel: int, stride: int, activation: str) -> None:
    x = np.clip(np.rint(normal(2, 12, 9, 14) * 50), -128, 127).astype(np.int8)
    steps = (np.abs(normal(12, seed=2)) + 1).astype(np.float32) / 100
    arrays = [x, normal(12, 1, kernel, kernel), normal(12, seed=1), steps]
    attributes = {
        "groups": 3,
        "strides": [stride] * 2,
        "pads": [kernel // 2] * 4,
        "activation": activation,
        "x_scale": 0.031,
        "y_scale": 0.07,
    }
    # a value in the middle between two integers may go to either
    assert_kernel("shuffle_depthwise", list(arrays), attributes, atol_lsb=1)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (4, 8), (13, 9)])
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (5, 6), (12, 13), (40, 7)])
def test_se_pointwise(size: tuple[int, int], channels: int, outputs: int) -> None:
    arrays = [
        normal(2, channels, *size),
        normal(2, channels, 1, 1, seed=1),
        normal(outputs, channels, 1, 1),
        normal(outputs) if outputs % 2 else None,
    ]
    assert_kernel("se_pointwise", arrays if arrays[3] is not None else arrays[:3], {})


def test_se_pointwise_in_float16() -> None:
    arrays = [
        normal(2, 12, 7, 5, dtype="float16"),
        normal(2, 12, 1, 1, seed=1, dtype="float16"),
        normal(9, 12, 1, 1, dtype="float16"),
    ]
    assert_kernel("se_pointwise", list(arrays), {}, rtol=2e-3)


def one_node(name: str, arrays: list[np.ndarray], attributes: dict[str, Any]) -> Model:
    return node_model(name, list(arrays), attributes, 4)


X, W = normal(2, 12, 7, 5), normal(12, 1, 3, 3)


@pytest.mark.parametrize(
    ("name", "arrays", "attributes", "reason"),
    [
        ("channel_shuffle", [X], {"groups": 5}, "groups = 5 doesn't divide"),
        ("channel_shuffle", [X], {"groups": 0}, "groups = 0 doesn't divide"),
        ("shuffle_depthwise", [X, W], {"groups": 5}, "groups = 5 doesn't divide"),
        ("shuffle_depthwise", [X, W], {"groups": 3, "activation": "Tanh"}, "knows Relu, or none"),
        ("shuffle_depthwise", [X, W], {"groups": 3, "strides": [0, 1]}, "two strides from 1 up"),
        ("shuffle_depthwise", [X, W], {"groups": 3, "pads": [1, 1]}, "four pads from 0 up"),
        (
            "shuffle_depthwise",
            [X, W[:6]],
            {"groups": 3},
            r"have to be \[N,C,H,W\] and \[C,1,kH,kW\]",
        ),
        ("shuffle_depthwise", [X, normal(12, 1, 9, 9)], {"groups": 3}, "larger than the padded x"),
        ("shuffle_depthwise", [X, W], {"groups": 3, "x_scale": 0.1}, "no other type has one"),
        ("shuffle_depthwise", [X, W.astype(np.float16)], {"groups": 3}, "input 1 is f16, x is f32"),
        ("shuffle_depthwise", [X], {"groups": 3}, "1 inputs; takes x, w"),
        (
            "se_pointwise",
            [X, normal(2, 12, 1, 1), normal(4, 11, 1, 1)],
            {},
            r"they have to be \[N,C,H,W\]",
        ),
        ("se_pointwise", [X, normal(2, 12, 1, 1)], {}, "2 inputs; takes x, scale, w"),
    ],
)
def test_refused(
    name: str, arrays: list[np.ndarray], attributes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BuildError, match=reason):
        ov.build(one_node(name, arrays, attributes), SETTINGS, "fp32")


def test_the_same_bytes_from_anywhere(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    made = [build_openvino("se_pointwise", tmp_path / folder).read_bytes() for folder in "ab"]
    assert made[0] == made[1]
    assert str(registry.plugin_roots()[0]).encode() not in made[0]
    assert str(tmp_path).encode() not in made[0]


def test_inside_a_network(tmp_path: Path) -> None:
    """Between operators of OpenVINO's own, from a saved engine, in another process's shape."""
    text = [
        onnx.helper.make_node("Relu", ["x"], ["r"]),
        onnx.helper.make_node(
            "ShuffleDepthwise", ["r", "w"], ["d"], domain="onnx_deploy", groups=3, pads=[1] * 4
        ),
        onnx.helper.make_node("ChannelShuffle", ["d"], ["s"], domain="onnx_deploy", groups=4),
        onnx.helper.make_node("Conv", ["s", "v"], ["y"]),
    ]
    kind = onnx.TensorProto.FLOAT
    v = normal(9, 12, 1, 1)
    graph = onnx.helper.make_graph(
        text,
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, ["N", 12, 7, 5])],
        [onnx.helper.make_tensor_value_info("y", kind, ["N", 9, 7, 5])],
        [onnx.numpy_helper.from_array(W, "w"), onnx.numpy_helper.from_array(v, "v")],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("onnx_deploy", 1)]
    model = Model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), "g")
    depthwise, shuffle = (
        registry.module("plugin", n) for n in ("shuffle_depthwise", "channel_shuffle")
    )
    d = depthwise.run(np.maximum(X, 0), W, groups=3, pads=[1] * 4)
    wanted = np.einsum("mc,nchw->nmhw", v[:, :, 0, 0], shuffle.run(d, groups=4))
    with ov.build(model, SETTINGS, "fp32") as engine:
        engine.save(tmp_path)
    with ov.load(tmp_path, SETTINGS, "fp32") as loaded:
        np.testing.assert_allclose(loaded.run({"x": X})["y"], wanted, rtol=1e-4, atol=1e-4)
