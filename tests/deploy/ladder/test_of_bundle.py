"""The ladder of a bundle, with and without the model it was built from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ladder_faults import broken, changed, shipped, swapped
from tiny_models import DIGITS

from deploy.artifacts.model import Model
from deploy.debug import debug
from deploy.errors import BundleError
from deploy.ladder.case import replay
from deploy.ladder.of_bundle import bundle_ladder
from deploy.pipeline import Job, deploy_model
from deploy.recipe import Recipe

pytest.importorskip("openvino")

TENSOR = "unit2.expand.bn/BatchNormalization_out"
NOTHING = Recipe.read(None, {})


def built(folder: Path, **more: object) -> Path:
    flags = {
        "precision": "int8",
        "data": str(DIGITS / "calib.npz"),
        "eval_data": str(DIGITS / "test.npz"),
        "samples": 64,
        "eval_samples": 32,
        "search_s": 0,
        **more,
    }
    deploy_model(Job(DIGITS / "digits.onnx", Recipe.read(None, flags), folder))
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("bundle") / "digits-int8")


def test_by_itself(bundle: Path) -> None:
    found = bundle_ladder(bundle, NOTHING)
    assert found.passed, found.verdict()
    names = [rung.name for rung in found.rungs]
    assert (names[0], names[-2:]) == ("fused", ["quantized", "engine"])
    assert found.about == "samples stored in the bundle"
    assert found.rungs[-1].tensors
    # the bundle's own tolerance holds for each output
    assert {out.limit_db for out in found.rungs[-1].outputs} == {8.0}


def test_weights_are_rounded_too_where_nothing_was_equalized(tmp_path: Path) -> None:
    """The bundle's own report judges it by the same rungs."""
    folder = built(tmp_path / "digits-int8", effort="fast")
    assert not (folder / "model" / "equalized.onnx").exists()
    told = json.loads((folder / "report.json").read_text(encoding="utf-8"))["ladder"]["rungs"]
    allowed = {rung["name"]: rung["allowed_db"] for rung in told}
    found = bundle_ladder(folder, NOTHING)
    assert found.passed, found.verdict()
    (quantized,) = (rung for rung in found.rungs if rung.name == "quantized")
    assert quantized.allowed_db == pytest.approx(allowed["quantized"], abs=0.5)


def test_a_float_engine_is_not_of_the_equalized_graph(bundle: Path, tmp_path: Path) -> None:
    """As an INT8 build leaves it whose float engine was the faster one."""
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    for name in ("quantized", "uncorrected"):
        (folder / "model" / f"{name}.onnx").unlink()
    assert (folder / "model" / "equalized.onnx").is_file()
    found = bundle_ladder(folder, NOTHING)
    assert "equalized" not in [rung.name for rung in found.rungs]


def test_with_the_model_and_other_data(bundle: Path) -> None:
    recipe = Recipe.read(None, {"data": str(DIGITS / "test.npz"), "min_sqnr_db": 90})
    found = bundle_ladder(bundle, recipe, model=DIGITS / "digits.onnx")
    assert [rung.name for rung in found.rungs][:3] == ["source", "loaded", "fused"]
    assert not found.broken
    assert not found.passed
    assert "needs 90" in found.verdict()
    assert found.verdict().startswith("quantized: ")
    limits = {rung.name: {out.limit_db for out in rung.outputs} for rung in found.rungs}
    # what is corrected later is judged later
    assert limits["uncorrected"] == {None}
    assert limits["quantized"] == limits["engine"] == {90.0}


def test_with_another_model_it_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = Model.load(bundle / "model" / "fused.onnx")
    other.save(tmp_path / "other.onnx")
    with pytest.raises(BundleError, match="give the model it was built from"):
        bundle_ladder(bundle, NOTHING, model=tmp_path / "other.onnx")


def test_an_engine_that_was_exchanged(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    graph = Model.load(bundle / "model" / "quantized.onnx")
    made = shipped(broken(graph, TENSOR, changed(swapped)), tmp_path / "engine")
    made.engine.close()
    shutil.rmtree(copy / "engine")
    shutil.copytree(tmp_path / "engine", copy / "engine")
    found = bundle_ladder(copy, NOTHING)
    assert [rung.stage for rung in found.broken] == ["build"]
    assert found.broken[0].culprits[0].tensor == TENSOR
    case = debug(DIGITS / "digits.onnx", copy, NOTHING, tmp_path / "case")
    assert case.culprit is not None
    assert case.culprit.tensor == TENSOR
    assert replay(tmp_path / "case").fails


def test_a_graph_that_was_exchanged(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    path = copy / "model" / "fused.onnx"
    broken(Model.load(path), TENSOR, changed(swapped)).save(path)
    case = debug(DIGITS / "digits.onnx", copy, NOTHING, tmp_path / "case")
    assert case.stage == "fuse"
    assert case.culprit is not None
    assert case.culprit.tensor == TENSOR
