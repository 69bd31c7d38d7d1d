"""The folder for OpenVINO Model Server, and what is refused in its configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import BundleError, RecipeError
from deploy.packaging.options import PackageOptions
from deploy.packaging.ovms_check import problems_of_config
from deploy.packaging.package_bundle import package_bundle


@pytest.fixture
def folder(digits: Path, tmp_path: Path) -> Path:
    package_bundle(digits, "ovms", tmp_path / "models", None, PackageOptions(version=2))
    return tmp_path / "models"


def config_of(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text())


def test_the_engine_and_how_it_was_judged(folder: Path) -> None:
    model = config_of(folder)["model_config_list"][0]["config"]
    assert model["name"] == "digits"
    assert model["base_path"] == "/models/digits"
    assert model["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"
    assert {p.name for p in (folder / "digits" / "2").iterdir()} == {"model.xml", "model.bin"}


def changed(folder: Path, change: Callable[[Any], object]) -> list[str]:
    content = config_of(folder)
    change(content)
    (folder / "config.json").write_text(json.dumps(content))
    return problems_of_config(folder)


def model(content: Any) -> dict[str, Any]:
    found: dict[str, Any] = content["model_config_list"][0]["config"]
    return found


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda c: model(c).pop("base_path"), "no base_path"),
        (lambda c: model(c).pop("name"), "no name"),
        (lambda c: model(c).update(stateful=True), "'stateful' was removed"),
        (lambda c: model(c).update(max_batch=8), "key 'max_batch'; there are: name"),
        (lambda c: model(c).update(nireq=-1), "nireq = -1"),
        (lambda c: model(c).update(nireq=True), "nireq = True"),
        (lambda c: model(c).update(plugin_config="x"), "plugin_config = 'x'"),
        (
            lambda c: model(c)["plugin_config"].update(PERFORMANCE_HINT="FAST"),
            "PERFORMANCE_HINT = 'FAST'; it takes LATENCY, THROUGHPUT, CUMULATIVE_THROUGHPUT",
        ),
        (lambda c: model(c).update(model_version_policy={"newest": {}}), "model_version_policy"),
        (lambda c: model(c).update(name="../x"), "can't be the name"),
        (lambda c: model(c).update(base_path="/models/../etc"), "leads out of /models"),
        (lambda c: model(c).update(base_path="/models/other"), "no version folder in other/"),
        (lambda c: c.pop("model_config_list"), "no model_config_list"),
        (lambda c: c.update(models=[]), "key 'models'"),
        (lambda c: c["model_config_list"].append({"name": "x"}), "not a table with config alone"),
        (lambda c: c["model_config_list"].append(c["model_config_list"][0]), "two models"),
        (lambda c: c.update(monitoring={"metrics": {"enable": "yes"}}), "enable = true or false"),
    ],
)
def test_what_the_server_would_refuse(
    change: Callable[[Any], object], refused: str, folder: Path
) -> None:
    problems = changed(folder, change)
    assert any(refused in problem for problem in problems), problems


@pytest.mark.parametrize(
    "change",
    [
        lambda c: model(c).update(batch_size="auto", shape={"image": "auto"}, allow_cache=True),
        lambda c: model(c).update(base_path="/elsewhere/digits"),
        lambda c: c.update(pipeline_config_list=[]),
        lambda c: model(c)["plugin_config"].update(PERFORMANCE_HINT="CUMULATIVE_THROUGHPUT"),
        lambda c: model(c).update(model_version_policy={"specific": {"versions": [2]}}),
    ],
)
def test_what_it_takes_is_accepted(change: Callable[[Any], object], folder: Path) -> None:
    assert changed(folder, change) == []


def test_a_missing_file_is_said(folder: Path) -> None:
    (folder / "digits" / "2" / "model.bin").unlink()
    assert "version 2 has no model.bin" in problems_of_config(folder)[0]


def test_what_is_no_json_is_said(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)
    assert "unreadable" in problems_of_config(folder)[0]


def test_a_tensorrt_engine_is_refused(tensorrt: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a TensorRT engine"):
        package_bundle(tensorrt, "ovms", tmp_path / "p", None, PackageOptions())


def test_grouping_is_refused(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--max-batch 8: OpenVINO Model Server doesn't group"):
        package_bundle(digits, "ovms", tmp_path / "p", None, PackageOptions(max_batch=8))


def test_the_server_is_of_the_release_that_built_the_engine(digits: Path, tmp_path: Path) -> None:
    made = package_bundle(digits, "ovms", tmp_path / "p", None, PackageOptions())
    built = json.loads((digits / "manifest.json").read_text())["tools"]["openvino"]
    release = ".".join(built.split(".")[:2])
    assert f" openvino/model_server:{release} --config_path" in made.command
    assert any(f"OpenVINO {built}" in note for note in made.written.notes)
