"""Every plugin folder: the expansion computes what the NumPy truth does, and loads as a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from deploy import registry
from deploy.errors import ModelError
from deploy.load import load, read
from deploy.plugin.ops import DOMAIN, expand_plugins, op_types

Case = tuple[dict[str, Any], dict[str, tuple[int, ...]]]
INT8 = {"x_scale": 0.02, "y_scale": 0.031}

# per plugin: attributes, and the shape of every input; odd sizes, groups 1 and C, C != groups^2
CASES: dict[str, list[Case]] = {
    "channel_shuffle": [
        ({"groups": 1}, {"x": (1, 5, 3, 7)}),
        ({"groups": 5}, {"x": (2, 5, 3, 7)}),
        ({"groups": 3}, {"x": (1, 12, 5, 3)}),
        ({"groups": 2}, {"x": (3, 58, 1, 9)}),
        ({"groups": 4}, {"x": (1, 24, 2, 2)}),
    ],
    "shuffle_depthwise": [
        ({}, {"x": (1, 5, 7, 4), "w": (5, 1, 3, 3)}),
        (
            {"groups": 3, "pads": [1, 1, 1, 1], "activation": "Relu"},
            {"x": (2, 12, 7, 5), "w": (12, 1, 3, 3), "bias": (12,)},
        ),
        (
            {"groups": 7, "strides": [2, 2], "pads": [2, 1, 0, 2]},
            {"x": (2, 7, 9, 6), "w": (7, 1, 5, 5)},
        ),
        (
            {"groups": 2, "pads": [1, 1, 1, 1], "activation": "Relu", **INT8},
            {"x": (2, 10, 7, 5), "w": (10, 1, 3, 3), "bias": (10,), "w_scale": (10,)},
        ),
        (
            {"groups": 5, "strides": [2, 2], **INT8},
            {"x": (1, 10, 9, 8), "w": (10, 1, 5, 5), "bias": (10,), "w_scale": (10,)},
        ),
    ],
    "se_pointwise": [
        ({}, {"x": (2, 5, 3, 7), "scale": (2, 5, 1, 1), "w": (9, 5, 1, 1)}),
        ({}, {"x": (1, 12, 5, 3), "scale": (1, 12, 1, 1), "w": (7, 12, 1, 1), "bias": (7,)}),
        (INT8, {"x": (2, 5, 3, 7), "scale": (2, 5, 1, 1), "w": (9, 5, 1, 1)}),
        (
            INT8,
            {
                "x": (2, 6, 5, 4),
                "scale": (2, 6, 1, 1),
                "w": (9, 6, 1, 1),
                "bias": (9,),
                "w_scale": (9,),
            },
        ),
    ],
}


def drawn(case: Case) -> dict[str, np.ndarray]:
    """Numbers for every input; x as int8 where the attributes give its scale."""
    attributes, shapes = case
    rng = np.random.default_rng(3)
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    if "x_scale" in attributes:
        arrays["x"] = rng.integers(-128, 128, shapes["x"]).astype(np.int8)
    if "w_scale" in shapes:
        arrays["w_scale"] = (np.abs(arrays["w_scale"]) + 1).astype(np.float32) / 100
    return arrays


def plugin_model(
    name: str, attributes: dict[str, Any], arrays: dict[str, np.ndarray]
) -> onnx.ModelProto:
    """One node; the activations are inputs, the rest is stored."""
    op = {folder: op_type for op_type, folder in op_types().items()}[name]
    node = onnx.helper.make_node(op, [*arrays], ["y"], domain=DOMAIN, **attributes)
    kind = onnx.helper.np_dtype_to_tensor_dtype(arrays["x"].dtype)
    graph = onnx.helper.make_graph(
        [node],
        name,
        [
            onnx.helper.make_tensor_value_info(
                each, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)
            )
            for each, array in arrays.items()
            if each in ("x", "scale")
        ],
        [onnx.helper.make_tensor_value_info("y", kind, ["d0", "d1", "d2", "d3"])],
        [
            onnx.numpy_helper.from_array(array, each)
            for each, array in arrays.items()
            if each not in ("x", "scale")
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(DOMAIN, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_every_folder_has_cases() -> None:
    assert set(CASES) == set(registry.names("plugin"))


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases]
)
def test_expansion_is_the_numpy_truth(name: str, case: Case, tmp_path: Path) -> None:
    plugin = registry.module("plugin", name)
    attributes, shapes = case
    arrays = drawn(case)
    wanted = plugin.run(*arrays.values(), **attributes)
    assert wanted.shape == plugin.infer_shape(*shapes.values(), **attributes)
    assert wanted.dtype == arrays["x"].dtype

    path = tmp_path / "plugin.onnx"
    onnx.save(plugin_model(name, attributes, arrays), path)
    model = load(read(path))

    assert {node.domain for node in model.proto.graph.node} <= {"", "ai.onnx"}
    session = ort.InferenceSession(model.serialized, providers=["CPUExecutionProvider"])
    got = session.run(None, {each: arrays[each] for each in ("x", "scale") if each in arrays})[0]
    assert_close(got, wanted)
    wanted.flat[np.argmax(np.abs(wanted.astype(np.float32)))] = 0
    with pytest.raises(AssertionError):
        assert_close(got, wanted)


def assert_close(got: np.ndarray, wanted: np.ndarray) -> None:
    """To float32's rounding; in int8 a value between two may round to either."""
    if wanted.dtype == np.int8:
        apart = np.abs(got.astype(int) - wanted)
        assert apart.max() <= 1 and np.mean(apart) <= 0.01
    else:
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_unknown_plugin_op_names_the_nearest() -> None:
    proto = plugin_model("channel_shuffle", {"groups": 1}, {"x": np.zeros((1, 2, 3, 4), "f")})
    proto.graph.node[0].op_type = "ChanelShuffle"
    with pytest.raises(ModelError, match=r"did you mean 'ChannelShuffle'"):
        expand_plugins(proto, "model")


def test_channel_shuffle_interleaves() -> None:
    plugin = registry.module("plugin", "channel_shuffle")
    x = np.arange(6).reshape(1, 6, 1, 1)
    assert plugin.run(x, groups=3).reshape(-1).tolist() == [0, 2, 4, 1, 3, 5]


def test_channel_shuffle_refuses_groups_that_do_not_divide() -> None:
    plugin = registry.module("plugin", "channel_shuffle")
    with pytest.raises(ValueError, match="groups = 4 doesn't divide 6 channels"):
        plugin.run(np.zeros((1, 6, 2, 2)), groups=4)
