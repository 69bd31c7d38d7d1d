"""Twenty seeded faults, each in one stage's product: the ladder names the stage and the node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import MODELS
from ladder_faults import (
    CIFAR,
    CPU,
    Build,
    Edit,
    broken,
    changed,
    digits,
    go_on,
    padded,
    pair_changed,
    real,
    replaced,
    saturated,
    shipped,
    swapped,
    turned,
    way_of,
)

from deploy.artifacts.ladder import Ladder
from deploy.fuse import fuse
from deploy.ladder.climb import ladder
from deploy.plugin import ops as plugin
from deploy.quantize import quantize

pytestmark = pytest.mark.slow

Change = Callable[[np.ndarray], np.ndarray]
BN = "bn/BatchNormalization_out"
STEM, EXPAND, DEPTHWISE = f"stem.{BN}", f"unit2.expand.{BN}", f"unit2.depthwise.{BN}"
PROJECT, HEAD = f"unit1.project.{BN}", "logits"


def louder(x: np.ndarray) -> np.ndarray:
    """One channel in four by a half more."""
    x[::4] = x[::4] * 1.5
    return x


def gone(x: np.ndarray) -> np.ndarray:
    return np.zeros_like(x)


# product, what was done to it, of which tensor's node, and how
GRAPH_FAULTS: list[tuple[str, str, str, Edit]] = [
    ("simplified", "swapped weight channels", "unit1.depthwise.conv/Conv_out", changed(swapped)),
    ("simplified", "transposed kernels", "stem.conv/Conv_out", changed(turned)),
    ("simplified", "wrong normalization", f"unit2.project.{BN}", changed(louder)),
    ("fused", "wrong fusion of a factor", STEM, changed(louder)),
    ("fused", "bias lost in a fusion", EXPAND, changed(gone, 2)),
    ("fused", "swapped weight channels", DEPTHWISE, changed(swapped)),
    ("fused", "transposed weight", HEAD, changed(turned)),
    ("fused", "padding on the wrong side", DEPTHWISE, padded),
    ("fused", "activation lost", "unit1.expand/Relu_out", replaced("Identity")),
    ("equalized", "swapped weight channels", EXPAND, changed(swapped)),
    ("equalized", "transposed kernels", DEPTHWISE, changed(turned)),
    ("uncorrected", "shifted scale", EXPAND, pair_changed(lambda x: x * 1.5, 1, 0)),
    ("uncorrected", "wrong zero point", PROJECT, pair_changed(lambda x: x + 9, 2, 0)),
    ("uncorrected", "swapped weight channels", STEM, changed(swapped)),
    ("uncorrected", "transposed kernels", DEPTHWISE, changed(turned)),
    ("uncorrected", "weight scales of other channels", EXPAND, pair_changed(swapped, 1, 1)),
    ("quantized", "wrong bias correction", PROJECT, changed(lambda x: x + 2.0, 2)),
]
MADE_BY = {
    "simplified": "simplify",
    "fused": "fuse",
    "equalized": "equalize",
    "uncorrected": "quantize",
    "quantized": "correct",
}


def named(found: Ladder, stage: str, node: str) -> None:
    """The one stage that is blamed, and the node."""
    assert [rung.stage for rung in found.broken] == [stage], found.verdict()
    culprit = found.broken[0].culprits[0]
    assert culprit.node == node, culprit
    assert stage in found.verdict()
    assert node in found.verdict()
    assert culprit.observed_db < culprit.expected_db


def node_of(build: Build, product: str, tensor: str) -> str:
    nodes = build.graphs[product].proto.graph.node
    node = next(n for n in nodes if tensor in n.output)
    return node.name or f"{node.op_type} -> {tensor}"


@pytest.mark.parametrize(
    ("product", "what", "tensor", "edit"),
    GRAPH_FAULTS,
    ids=[f"{p}: {w}" for p, w, _, _ in GRAPH_FAULTS],
)
def test_a_broken_graph(product: str, what: str, tensor: str, edit: Edit) -> None:
    """The stages behind the broken one work on what they are given, as they would."""
    sound = digits()
    graphs = {**sound.graphs, product: broken(sound.graphs[product], tensor, edit)}
    build = go_on(replace(sound, graphs=graphs), product)
    named(ladder(way_of(build), build.samples), MADE_BY[product], node_of(build, product, tensor))


def test_a_saturated_range() -> None:
    sound = digits()
    ranges = saturated(sound.ranges, "unit2/Relu_out", 0.1)
    graphs = dict(sound.graphs)
    graphs["uncorrected"] = quantize(graphs["equalized"], ranges, CPU)
    del graphs["quantized"]
    found = ladder(way_of(replace(sound, graphs=graphs, ranges=ranges)), sound.samples)
    named(found, "quantize", node_of(sound, "equalized", f"unit3.expand.{BN}"))


def test_a_plugin_that_expands_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused graph has a plugin where the model has a shuffle; what it stands for is wrong."""
    sound = digits()
    order = ("fold_affine", "plugin_channel_shuffle")
    fused = fuse(sound.graphs["simplified"], order)
    shuffle = next(n for n in fused.proto.graph.node if n.op_type == "ChannelShuffle")
    graphs = {k: sound.graphs[k] for k in ("source", "loaded", "simplified")} | {"fused": fused}
    build = replace(sound, graphs=graphs)
    assert ladder(way_of(build), build.samples).passed

    right = plugin._expansion

    def wrong(*arguments: Any) -> str:
        return right(*arguments).replace("[0, 2, 1, 3]", "[0, 1, 2, 3]")

    monkeypatch.setattr(plugin, "_expansion", wrong)
    found = ladder(way_of(build), build.samples)
    named(found, "fuse", shuffle.name)


@pytest.mark.parametrize(
    ("tensor", "edit"),
    [(EXPAND, changed(swapped)), (PROJECT, changed(lambda x: x + 0.7, 2))],
    ids=["swapped weight channels", "wrong bias"],
)
def test_an_engine_with_one_layer_altered(tensor: str, edit: Edit, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    sound = digits()
    built_of = broken(sound.graphs["quantized"], tensor, edit)
    engine = shipped(built_of, tmp_path / "engine")
    with engine.engine:
        found = ladder(way_of(sound, engine), sound.samples)
    named(found, "build", node_of(sound, "quantized", tensor))


def test_what_is_sound_raises_no_alarm(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    sound = digits()
    engine = shipped(sound.graphs["quantized"], tmp_path / "engine")
    with engine.engine:
        found = ladder(way_of(sound, engine), sound.samples, "4 test samples")
    assert found.passed, found.verdict()
    assert [rung.name for rung in found.rungs][-2:] == ["quantized", "engine"]
    assert not any(rung.culprits for rung in found.rungs)


def test_a_sound_float_engine_raises_no_alarm(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    sound = digits()
    graphs = {k: v for k, v in sound.graphs.items() if k in ("source", "loaded", "fused")}
    engine = shipped(graphs["fused"], tmp_path / "engine", "fp32")
    with engine.engine:
        found = ladder(way_of(replace(sound, graphs=graphs), engine), sound.samples)
    assert found.passed, found.verdict()


REAL: dict[str, dict[str, object]] = {
    "resnet20_cifar10": {
        **CIFAR,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
    "dscnn_kws": {"data": "kws01/calib_200.npz", "eval_data": "kws01/test_300.npz"},
}


@pytest.mark.parametrize("name", REAL)
def test_a_sound_real_model_raises_no_alarm(name: str, tmp_path: Path) -> None:
    model = MODELS / f"{name}.onnx"
    if not model.is_file():
        pytest.skip(f"{model} is missing")
    pytest.importorskip("openvino")
    sound = real(name, REAL[name])
    engine = shipped(sound.graphs["quantized"], tmp_path / "engine")
    with engine.engine:
        found = ladder(way_of(sound, engine), sound.samples)
    assert found.passed, found.verdict()


def test_a_correction_off_by_itself_is_no_fault_where_outputs_are_fine() -> None:
    """It mends a layer for the inputs it gets: out of others it may well be off."""
    sound = digits()
    moved = broken(sound.graphs["quantized"], EXPAND, changed(lambda x: x + 0.03, 2))
    build = replace(sound, graphs={**sound.graphs, "quantized": moved})
    found = ladder(way_of(build), build.samples)
    rung = found.rungs[-1]
    assert rung.own_db > rung.allowed_db
    assert found.passed, found.verdict()
