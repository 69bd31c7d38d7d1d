"""The ladder as a stage of a build: made once, found again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import DIGITS

from deploy.artifacts.ladder import Ladder
from deploy.data import open_data
from deploy.fuse import fuse
from deploy.judge import limits_for
from deploy.ladder.of_build import build_ladder
from deploy.line import Job, Line
from deploy.load import load, read
from deploy.recipe import Recipe
from deploy.simplify import simplify
from deploy.target import Target
from deploy.work import Work, tool_versions

pytest.importorskip("openvino")

TOOLS = tool_versions()


def climbed(folder: Path, precision: str) -> Ladder:
    """A float build's ladder, as the pipeline would ask for it."""
    recipe = Recipe.read(None, {"eval_data": str(DIGITS / "test.npz"), "eval_samples": 12})
    target, source = Target.load("cpu"), read(DIGITS / "digits.onnx")
    with Work(folder, TOOLS, fresh=False) as work:
        line = Line(Job(DIGITS / "digits.onnx", recipe, folder), work, source)
        loaded = load(source)
        graphs = {"source": source, "loaded": loaded, "simplified": simplify(loaded)}
        graphs["fused"] = fuse(graphs["simplified"], target.fusions)
        data = open_data(recipe, loaded)
        built = line.engine(graphs["fused"], target, precision)  # type: ignore[arg-type]
        limits = limits_for(target, built.precision, recipe, loaded, data.evaluation)
        judged = line.judged(built, loaded, data.evaluation, limits)
        return build_ladder(line, graphs, judged, None, data.evaluation)


def test_all_graphs_and_the_engine(tmp_path: Path) -> None:
    found = climbed(tmp_path / "work", "fp32")
    assert found.passed, found.verdict()
    assert found.samples == 8
    names = [rung.name for rung in found.rungs]
    assert names[:4] == ["source", "loaded", "simplified", "fused"]
    assert names[-1] == "engine"
    assert {out.limit_db for out in found.rungs[-1].outputs} == {60.0}


def test_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = climbed(tmp_path / "work", "fp32")

    def never(*arguments: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("deploy.ladder.of_build.ladder", never)
    assert climbed(tmp_path / "work", "fp32") == first
