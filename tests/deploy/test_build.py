"""The engine on disk, its settings beside it, and a precision the machine can't compute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import model_from, weight
from tiny_models import conv, samples_of

from deploy.backends import ov
from deploy.build import build, for_compiler, load_engine
from deploy.errors import BuildError
from deploy.pipeline import Job, deploy_model
from deploy.recipe import Recipe
from deploy.target import Target


def test_writes_engine_and_settings_and_loads_them_again(tmp_path: Path) -> None:
    target = Target.load("cpu")
    build(conv(), target, "fp32", tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert (settings["backend"], settings["precision"]) == ("ov", "fp32")
    assert settings["engine"] == target.engine.model_dump(mode="json")
    (sample,) = samples_of(conv(), 1)
    with load_engine(tmp_path, target, "fp32") as engine:
        got = engine.run(sample.feeds)["y"]
    with ov.build(conv(), target.engine, "fp32") as direct:
        assert np.array_equal(got, direct.run(sample.feeds)["y"])


def test_bf16_on_a_machine_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ov.OpenVinoEngine, "properties", lambda self: {"inference_precision": "f32"}
    )
    with pytest.raises(
        BuildError, match="this machine computes in f32, it has no bf16; use --fp32"
    ):
        build(conv(), Target.load("cpu"), "bf16", tmp_path)
    # another machine's target can't be judged by this one
    build(conv(), Target.load("intel-amx"), "bf16", tmp_path)
    build(conv(), Target.load("cpu"), "fp32", tmp_path)


@pytest.mark.parametrize(
    "name, batch, regrouped",
    [("N", 1, True), ("N", 4, True), ("N", "dynamic", False), ("2", "dynamic", True)],
)
def test_a_free_batch_leaves_out_what_needs_sizes(
    name: str, batch: int | str, regrouped: bool
) -> None:
    """OpenVINO would copy what these fusions only rename: slower than without them."""
    cpu = Target.load("cpu")
    target = cpu.model_copy(update={"engine": cpu.engine.model_copy(update={"batch": batch})})
    body = "y = Conv<strides=[2,2]>(x, w)"
    model = model_from(
        f"g (float[{name},3,8,8] x) => (float[{name},5,4,4] y) {{ {body} }}",
        {"w": weight(5, 3, 2, 2)},
    )
    rules = [d.rule for d in for_compiler(model, target, "fp32").decisions]
    assert ("interleave_rows" in rules) == regrouped


def test_the_report_tells_what_the_compiler_got(tmp_path: Path) -> None:
    """Beside the stages' decisions, and on the map at the convolution it is about."""
    model = model_from(
        "g (float[N,3,8,8] x) => (float[N,5,4,4] y) { y = Conv<strides=[2,2]>(x, w) }",
        {"w": weight(5, 3, 2, 2)},
    )
    model.save(tmp_path / "m.onnx")
    x = np.random.default_rng(5).standard_normal((6, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    recipe = Recipe.read(None, {"precision": "fp32", "eval_data": str(tmp_path / "x.npz")})
    deploy_model(Job(tmp_path / "m.onnx", recipe, tmp_path / "b"))
    report = json.loads((tmp_path / "b" / "report.json").read_text(encoding="utf-8"))
    found = [i for i, d in enumerate(report["decisions"]) if d["rule"] == "interleave_rows"]
    assert [report["decisions"][i]["stage"] for i in found] == ["build"]
    (node,) = report["graph_map"]["nodes"]
    assert set(found) <= set(node["decisions"])
