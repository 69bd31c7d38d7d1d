"""From two graphs, or a graph and an engine, to a case of its own that fails again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from ladder_faults import broken, changed, digits, shipped, swapped
from tiny_models import DIGITS

from deploy.artifacts.model import Model
from deploy.debug import debug
from deploy.errors import BundleError, ModelError
from deploy.ladder.case import replay
from deploy.recipe import Recipe

TENSOR = "unit2.expand.bn/BatchNormalization_out"
NODE = f"{TENSOR}/Conv"
RECIPE = Recipe.read(None, {"data": str(DIGITS / "test.npz")})


def saved(model: Model, path: Path) -> Path:
    model.save(path)
    return path


def test_a_broken_float_graph(tmp_path: Path) -> None:
    fused = digits().graphs["fused"]
    right = saved(fused, tmp_path / "right.onnx")
    wrong = saved(broken(fused, TENSOR, changed(swapped)), tmp_path / "wrong.onnx")
    found = debug(right, wrong, RECIPE, tmp_path / "case")
    assert found.culprit is not None
    assert (found.culprit.node, found.stage) == (NODE, "rewrite")
    assert found.case == tmp_path / "case"
    alone = onnx.load(found.case / "model.onnx")
    assert [n.op_type for n in alone.graph.node] == ["Conv"]
    again = replay(found.case)
    assert again.fails
    assert again.observed_db == pytest.approx(found.culprit.observed_db, abs=3)
    row = json.loads((found.case / "case.json").read_text())
    assert row["command"] == f"deploy debug --replay {found.case}"


def test_a_mended_case_is_right(tmp_path: Path) -> None:
    fused = digits().graphs["fused"]
    right = saved(fused, tmp_path / "right.onnx")
    wrong = saved(broken(fused, TENSOR, changed(swapped)), tmp_path / "wrong.onnx")
    found = debug(right, wrong, RECIPE, tmp_path / "case")
    assert found.case is not None
    path = found.case / "model.onnx"
    alone = Model.load(path)
    back = changed(lambda x: np.roll(x, -1, axis=0))
    broken(alone, TENSOR, back).save(path)
    assert not replay(found.case).fails


def test_equal_graphs(tmp_path: Path) -> None:
    right = saved(digits().graphs["fused"], tmp_path / "right.onnx")
    found = debug(DIGITS / "digits.onnx", right, RECIPE, tmp_path / "case")
    assert found.culprit is None
    assert not found.stage_broken
    assert not (tmp_path / "case").exists()


@pytest.mark.parametrize("against", ["fused", "equalized"])
def test_a_broken_quantized_graph(against: str, tmp_path: Path) -> None:
    sound = digits()
    right = saved(sound.graphs[against], tmp_path / "right.onnx")
    made = broken(sound.graphs["quantized"], TENSOR, changed(swapped))
    found = debug(right, saved(made, tmp_path / "wrong.onnx"), RECIPE, tmp_path / "case")
    assert found.culprit is not None
    assert (found.culprit.node, found.stage) == (NODE, "quantize")
    assert found.case is not None
    assert replay(found.case).fails


@pytest.mark.parametrize("against", ["fused", "equalized"])
def test_a_sound_quantized_graph(against: str, tmp_path: Path) -> None:
    sound = digits()
    right = saved(sound.graphs[against], tmp_path / "right.onnx")
    other = saved(sound.graphs["quantized"], tmp_path / "other.onnx")
    assert debug(right, other, RECIPE, tmp_path / "case").culprit is None


def test_a_broken_engine(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    graph = digits().graphs["quantized"]
    right = saved(graph, tmp_path / "right.onnx")
    made = shipped(broken(graph, TENSOR, changed(swapped)), tmp_path / "engine")
    made.engine.close()
    found = debug(right, tmp_path / "engine", RECIPE, tmp_path / "case")
    assert found.culprit is not None
    assert (found.culprit.node, found.stage) == (NODE, "build")
    assert found.case is not None
    assert replay(found.case).fails


def test_other_outputs_are_refused(tmp_path: Path) -> None:
    fused = digits().graphs["fused"]
    right = saved(fused, tmp_path / "right.onnx")
    renamed = Model(onnx.ModelProto.FromString(fused.serialized), "m")
    last = renamed.proto.graph.node[-1]
    last.output[0] = renamed.proto.graph.output[0].name = "other"
    with pytest.raises(ModelError, match=r"has none of the outputs.*logits"):
        debug(right, saved(renamed, tmp_path / "r.onnx"), RECIPE, tmp_path / "case")


def test_a_folder_without_a_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="give a folder that `deploy debug` wrote"):
        replay(tmp_path)
    (tmp_path / "case.json").write_text("{}")
    with pytest.raises(BundleError, match="damaged"):
        replay(tmp_path)
