"""NVIDIA's own ONNX parser finds our plugins for nodes of our domain and reads their attributes.

Opt-in: the TensorRT-RTX wheels (the extra `rtx`), whose parser is that of TensorRT 11, and headers
(see tensorrt_headers). Needs no GPU.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from deploy.plugin.ops import DOMAIN

HERE = Path(__file__).resolve().parent
SHUFFLE = {"groups": 3, "strides": [2, 2], "pads": [1, 0, 1, 2], "activation": "Relu"}
# shapes of the inputs: the first one the graph's, the others constants
SHAPES = {
    "ShuffleDepthwise": [(1, 12, 9, 7), (12, 1, 3, 3), (12,)],
    "SePointwise": [(1, 6, 5, 7), (1, 6, 1, 1), (10, 6, 1, 1), (10,)],
    "ChannelShuffle": [(1, 12, 5, 7)],
}


def said_of(op: str, attributes: dict[str, Any], library: Path, folder: Path) -> list[str]:
    """The parser's log for a model with one node of that op."""
    if any(
        importlib.util.find_spec(f"tensorrt_rtx_{part}") is None for part in ("bindings", "libs")
    ):
        pytest.skip("TensorRT-RTX isn't installed: onnx-deploy[rtx]")
    names = [f"input_{i}" for i in range(len(SHAPES[op]))]
    constants = [
        onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in zip(names[1:], SHAPES[op][1:], strict=True)
    ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, names, ["y"], domain=DOMAIN, **attributes)],
        "one_plugin",
        [info(names[0], onnx.TensorProto.FLOAT, SHAPES[op][0])],
        [info("y", onnx.TensorProto.FLOAT, ["n", "c", "h", "w"])],
        constants,
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(DOMAIN, 1)]
    model = folder / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), model)
    command = [sys.executable, "-B", str(HERE / "in_parser.py"), str(library), str(model)]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace"
    ).stdout.splitlines()


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("ShuffleDepthwise", SHUFFLE),
        ("ShuffleDepthwise", {**SHUFFLE, "x_scale": 0.5, "y_scale": 0.25}),
        ("ShuffleDepthwise", {}),
        ("SePointwise", {}),
        ("ChannelShuffle", {"groups": 4}),
    ],
)
def test_a_node_becomes_our_plugin(
    op: str, attributes: dict[str, Any], plugin_library: Callable[[str], Path], tmp_path: Path
) -> None:
    lines = said_of(op, attributes, plugin_library("11.1"), tmp_path)
    assert f"INFO Searching for plugin: {op}, plugin_version: 1, plugin_namespace: " in lines
    assert f"INFO Successfully created plugin: {op}" in lines
    assert [line for line in lines if "ERROR" in line] == []


@pytest.mark.parametrize(
    ("op", "attributes", "why"),
    [
        ("ShuffleDepthwise", {"groups": 0}, "groups is 0, expected 1 or more"),
        ("ShuffleDepthwise", {"pads": [1, 1]}, "attribute 'pads' has 2 entries, expected 4"),
        ("ShuffleDepthwise", {"activation": "Clip"}, "activation is 'Clip', expected"),
        ("SePointwise", {"x_scale": 0.5}, "x_scale is 0.500000 and y_scale 0.000000"),
        ("ChannelShuffle", {}, "attribute 'groups' is missing"),
    ],
)
def test_the_reason_of_a_refusal_is_in_its_log(
    op: str,
    attributes: dict[str, Any],
    why: str,
    plugin_library: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    lines = said_of(op, attributes, plugin_library("11.1"), tmp_path)
    assert any(line.startswith(f"ERROR onnx_deploy.{op}: {why}") for line in lines), lines
    assert f"INFO Successfully created plugin: {op}" not in lines
