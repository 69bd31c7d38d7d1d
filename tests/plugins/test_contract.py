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
from deploy.plugin import DOMAIN, expand_plugins, op_types

# per plugin: (attributes, input shape); odd sizes, groups 1 and C, C != groups^2
CASES: dict[str, list[tuple[dict[str, Any], tuple[int, ...]]]] = {
    "channel_shuffle": [
        ({"groups": 1}, (1, 5, 3, 7)),
        ({"groups": 5}, (2, 5, 3, 7)),
        ({"groups": 3}, (1, 12, 5, 3)),
        ({"groups": 2}, (3, 58, 1, 9)),
        ({"groups": 4}, (1, 24, 2, 2)),
    ],
}


def plugin_model(name: str, attributes: dict[str, Any], shape: tuple[int, ...]) -> onnx.ModelProto:
    op = {folder: op_type for op_type, folder in op_types().items()}[name]
    node = onnx.helper.make_node(op, ["x"], ["y"], domain=DOMAIN, **attributes)
    rank = [f"d{i}" for i in range(len(shape))]
    graph = onnx.helper.make_graph(
        [node],
        name,
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(shape))],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, rank)],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(DOMAIN, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_every_folder_has_cases() -> None:
    assert set(CASES) == set(registry.names("plugin"))


@pytest.mark.parametrize(
    ("name", "attributes", "shape"),
    [(name, *case) for name, cases in CASES.items() for case in cases],
)
def test_expansion_is_the_numpy_truth(
    name: str, attributes: dict[str, Any], shape: tuple[int, ...], tmp_path: Path
) -> None:
    plugin = registry.module("plugin", name)
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    wanted = plugin.run(x, **attributes)
    assert wanted.shape == plugin.infer_shape(shape, **attributes)

    path = tmp_path / "plugin.onnx"
    onnx.save(plugin_model(name, attributes, shape), path)
    model = load(read(path))

    assert {node.domain for node in model.proto.graph.node} <= {"", "ai.onnx"}
    session = ort.InferenceSession(model.serialized, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], wanted)


def test_unknown_plugin_op_names_the_nearest() -> None:
    proto = plugin_model("channel_shuffle", {"groups": 1}, (1, 2, 3, 4))
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
