"""The Triton repository of OpenVINO and of TensorRT engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from served_bundles import DIGITS, as_tensorrt, rewritten

from deploy.errors import BundleError, RecipeError
from deploy.packaging.config_pbtxt import parse_config
from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import Packaged, package_bundle
from deploy.pipeline import Job, deploy_model
from deploy.recipe import Recipe

NONE = PackageOptions()


def packaged(bundle: Path, tmp_path: Path, options: PackageOptions = NONE) -> Packaged:
    return package_bundle(bundle, "triton", tmp_path / "r", "m", options)


def config_of(made: Packaged) -> Any:
    return parse_config(made.folder / "m" / "config.pbtxt")


def dims(ports: Any) -> list[list[int]]:
    return [list(port.dims) for port in ports]


def test_requests_of_any_batch_are_taken_one_by_one(digits: Path, tmp_path: Path) -> None:
    made = packaged(digits, tmp_path)
    config = config_of(made)
    assert config.backend == "openvino"
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert dims(config.input) == [[-1, 1, 8, 8]]
    assert dims(config.output) == [[-1, 10]]
    assert [p.name for p in config.input] == ["image"]
    assert list(config.version_policy.specific.versions) == [1]
    warmup = config.model_warmup[0]
    assert warmup.batch_size == 1
    assert list(warmup.inputs["image"].dims) == [1, 1, 8, 8]
    assert "ENABLE_BATCH_PADDING" not in config.parameters


def test_a_group_is_padded_where_grouping_is_asked_for(digits: Path, tmp_path: Path) -> None:
    made = packaged(digits, tmp_path, PackageOptions(max_batch=8, instances=2, version=3))
    config = config_of(made)
    assert config.max_batch_size == 8
    assert config.HasField("dynamic_batching")
    assert dims(config.input) == [[1, 8, 8]]
    assert dims(config.output) == [[10]]
    assert config.parameters["ENABLE_BATCH_PADDING"].string_value == "YES"
    assert config.parameters["NUM_STREAMS"].string_value == "2"
    assert config.instance_group[0].count == 2
    assert (made.folder / "m" / "3" / "model.xml").is_file()
    assert list(config.model_warmup[0].inputs["image"].dims) == [1, 8, 8]
    assert any("filled up to 8 samples" in note for note in made.written.notes)


def test_the_engine_with_a_free_batch_computes_the_same(digits: Path, tmp_path: Path) -> None:
    made = packaged(digits, tmp_path)
    core, exact = ov.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    freed = core.compile_model(made.folder / "m" / "1" / "model.xml", "CPU", exact)
    own = core.compile_model(digits / "engine" / "model.xml", "CPU", exact)
    x = np.random.default_rng(3).uniform(size=(5, 1, 8, 8)).astype(np.float32)
    wanted = np.concatenate([own({"image": x[i : i + 1]})["logits"] for i in range(5)])
    np.testing.assert_allclose(freed({"image": x})["logits"], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("which", "why"),
    [
        ("stuck", "its output y would have shape [1,8]"),
        ("mixing", "a batch gives other numbers for y"),
    ],
)
def test_an_engine_that_needs_its_batch_keeps_it(
    which: str, why: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bundle: Path = request.getfixturevalue(which)
    made = packaged(bundle, tmp_path)
    config = config_of(made)
    assert config.max_batch_size == 0
    assert dims(config.input) == [[1, 4, 3]]
    note = made.written.notes[0]
    assert note.startswith("requests take exactly the engine's shapes: ")
    assert why in note
    for part in ("model.xml", "model.bin"):
        own = (bundle / "engine" / part).read_bytes()
        assert (made.folder / "m" / "1" / part).read_bytes() == own
    with pytest.raises(RecipeError, match=r"--max-batch 4: the engine takes a batch of 1: .*build"):
        package_bundle(bundle, "triton", tmp_path / "x", "m", PackageOptions(max_batch=4))


def test_an_engine_built_for_a_batch_fills_it_up(tmp_path: Path) -> None:
    keys = {"target": "cpu", "precision": "fp32", "batch": 4}
    recipe = Recipe.read(None, {**keys, "eval_data": str(DIGITS / "test.npz")})
    deploy_model(Job(DIGITS / "digits.onnx", recipe, tmp_path / "b"))
    made = packaged(tmp_path / "b", tmp_path)
    assert config_of(made).max_batch_size == 4
    assert dims(config_of(made).input) == [[1, 8, 8]]
    assert made.written.notes[0].startswith("every group is filled up to 4 samples")
    with pytest.raises(RecipeError, match="--max-batch 8: the engine takes a batch of 4"):
        package_bundle(tmp_path / "b", "triton", tmp_path / "x", "m", PackageOptions(max_batch=8))


def test_f32_that_the_backend_cannot_be_told_is_said(digits: Path, tmp_path: Path) -> None:
    made = packaged(digits, tmp_path)
    assert any("judged in f32" in note for note in made.written.notes)


def test_bf16_is_told(bundle: Path, tmp_path: Path) -> None:
    rewritten(bundle, precision="bf16")
    made = packaged(bundle, tmp_path)
    assert config_of(made).parameters["HINT_BF16"].string_value == "YES"


def test_one_library_is_told_two_are_refused(bundle: Path, tmp_path: Path) -> None:
    engine = bundle / "engine"
    described = json.loads((engine / "engine.json").read_text())
    for names, match in ((["a.so"], None), (["a.so", "b.so"], r"needs a\.so, b\.so")):
        for name in names:
            (engine / name).write_bytes(b"no library")
        rows = [{"plugin": "x", "file": name, "sha256": "0"} for name in names]
        (engine / "engine.json").write_text(json.dumps(described | {"libraries": rows}))
        rewritten(bundle)
        if match is not None:
            with pytest.raises(BundleError, match=match):
                packaged(bundle, tmp_path)
            continue
        made = packaged(bundle, tmp_path)
        path = config_of(made).parameters["CPU_EXTENSION_PATH"].string_value
        assert path == "/models/m/1/a.so"
        assert (made.folder / "m" / "1" / "a.so").is_file()
        # its code was not run to free the batch
        assert dims(config_of(made).input) == [[1, 1, 8, 8]]


def test_a_plan_is_grouped_to_its_profile(tensorrt: Path, tmp_path: Path) -> None:
    made = packaged(tensorrt, tmp_path)
    config = config_of(made)
    assert config.backend == "tensorrt"
    assert config.max_batch_size == 16
    assert config.HasField("dynamic_batching")
    assert dims(config.input) == [[1, 8, 8]]
    assert (made.folder / "m" / "1" / "model.plan").read_bytes() == b"a plan"
    assert "tritonserver:26.05-py3" in made.command
    assert "--gpus all" in made.command
    assert made.record["container"]["tensorrt"] == "10.16.1"
    assert "KIND_GPU" in (made.folder / "m" / "config.pbtxt").read_text()


def test_a_plan_of_a_fixed_batch_is_not_grouped(bundle: Path, tmp_path: Path) -> None:
    made = packaged(as_tensorrt(bundle, batch=None), tmp_path)
    assert config_of(made).max_batch_size == 0
    assert dims(config_of(made).input) == [[1, 1, 8, 8]]


def test_more_than_the_profile_takes_is_refused(tensorrt: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--max-batch 32: the engine's profile takes up to 16"):
        packaged(tensorrt, tmp_path, PackageOptions(max_batch=32))


def test_a_container_with_another_tensorrt_is_refused(tensorrt: Path, tmp_path: Path) -> None:
    match = r"has TensorRT 10\.3\.0, the engine was built with 10\.16\.1"
    with pytest.raises(RecipeError, match=match):
        packaged(tensorrt, tmp_path, PackageOptions(triton_tag="24.08"))


def test_tensorrt_rtx_has_no_backend(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="built with 'tensorrt_rtx'"):
        packaged(as_tensorrt(bundle, library="tensorrt_rtx", version="1.7.1"), tmp_path)


def test_the_plugins_a_plan_needs_are_loaded(bundle: Path, tmp_path: Path) -> None:
    library = tmp_path / "libplugins.so"
    library.write_bytes(b"kernels")
    as_tensorrt(bundle, plugins=(library,))
    with pytest.raises(RecipeError, match=r"needs libplugins\.so .* give that file with --plugin"):
        packaged(bundle, tmp_path)
    made = packaged(bundle, tmp_path, PackageOptions(plugin_libraries=(library,)))
    assert (made.folder / "m" / "plugins" / "libplugins.so").read_bytes() == b"kernels"
    assert "tensorrt,plugins=/models/m/plugins/libplugins.so" in made.command
    library.write_bytes(b"other kernels")
    with pytest.raises(RecipeError, match="give that file"):
        packaged(bundle, tmp_path, PackageOptions(plugin_libraries=(library,)))


def test_types_the_backend_lacks_are_refused(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "engine" / "engine.json"
    path.write_text(path.read_text().replace("float32", "float64"))
    rewritten(bundle)
    with pytest.raises(BundleError, match="float64, which Triton's OpenVINO backend doesn't take"):
        packaged(bundle, tmp_path)
