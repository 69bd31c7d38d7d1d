"""Bundles small enough to build for every test run, and an imported TensorRT one made by hand."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploy.artifacts.bundle import MANIFEST, write_manifest
from deploy.files import sha256_of
from deploy.pipeline import Job, deploy_model
from deploy.recipe import Recipe

ASSETS = Path(os.environ.get("ONNX_DEPLOY_ASSETS", Path(__file__).parents[3] / "shared/assets"))
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's float bundle, built for batch 1."""
    output = tmp_path_factory.mktemp("bundle") / "digits"
    recipe = Recipe.read(
        None,
        {"target": "cpu", "precision": "fp32", "eval_data": str(DIGITS / "test.npz")},
    )
    deploy_model(Job(DIGITS / "digits.onnx", recipe, output))
    return output


def mobilenetv2(output: Path) -> Path:
    """MobileNetV2 of the shared assets in INT8, at `output`; skips where they are missing."""
    model = ASSETS / "models" / "mobilenetv2_1.0_imagenet.onnx"
    if not model.is_file():
        pytest.skip(f"no {model} (ONNX_DEPLOY_ASSETS)")
    keys: dict[str, Any] = {"target": "cpu", "precision": "int8", "samples": 64, "search_s": 0}
    keys |= {"data": str(ASSETS / "data" / "imagenet_sample"), "crop": (224, 224)}
    keys |= {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    deploy_model(Job(model, Recipe.read(None, keys), output))
    return output


@pytest.fixture
def bundle(digits: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    copied = tmp_path / "bundle"
    shutil.copytree(digits, copied)
    return copied


def _fixed(folder: Path, nodes: list[Any], constants: dict[str, np.ndarray]) -> Path:
    """The bundle of a small model, float32 x[1, 4, 3] -> y[1, 8]."""
    graph = helper.make_graph(
        nodes,
        "fixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        [onnx.numpy_helper.from_array(x, name) for name, x in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, folder / "fixed.onnx")
    x = np.random.default_rng(5).standard_normal((6, 4, 3)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    data = str(folder / "x.npz")
    recipe = Recipe.read(None, {"target": "cpu", "precision": "fp32", "eval_data": data})
    deploy_model(Job(folder / "fixed.onnx", recipe, folder / "bundle"))
    return folder / "bundle"


@pytest.fixture(scope="session")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose model holds its batch of 1 in a Reshape."""
    weight = np.random.default_rng(6).standard_normal((3, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Relu", ["product"], ["positive"]),
        helper.make_node("Reshape", ["positive", "one"], ["y"]),
    ]
    shapes = {"rows": np.array([4, 3], np.int64), "one": np.array([1, 8], np.int64)}
    return _fixed(tmp_path_factory.mktemp("stuck"), nodes, {**shapes, "w": weight})


@pytest.fixture(scope="session")
def mixing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose model takes a mean over the batch too, so that samples see each other."""
    weight = np.random.default_rng(7).standard_normal((12, 8)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0, 1, 2], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    return _fixed(tmp_path_factory.mktemp("mixing"), nodes, {"w": weight})


def rewritten(folder: Path, **changes: Any) -> None:
    """A bundle's manifest made anew over its files, as someone who forges it would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    kept = {k: v for k, v in manifest.items() if k not in ("files", "manifest_sha256")}
    (folder / MANIFEST).unlink()
    write_manifest(folder, {**kept, **changes})


@pytest.fixture
def tensorrt(bundle: Path) -> Path:
    """What `deploy import` leaves for an NVIDIA device, without a real plan in it."""
    return as_tensorrt(bundle)


def as_tensorrt(
    folder: Path,
    *,
    version: str = "10.16.1.11",
    library: str = "tensorrt",
    batch: int | None = 16,
    plugins: tuple[Path, ...] = (),
) -> Path:
    shutil.rmtree(folder / "engine")
    (folder / "engine").mkdir()
    (folder / "engine" / "model.engine").write_bytes(b"a plan")
    first = None if batch else 1
    sent = {
        "inputs": [{"name": "image", "dtype": "float32", "shape": [first, 1, 8, 8]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": [first, 10]}],
        "profiles": {"image": {"min": [1, 1, 8, 8], "max": [batch, 1, 8, 8]}} if batch else {},
    }
    report = {
        "device": {"library": library, "version": version, "compute_capability": "8.0"},
        "plugins": [{"library": f"plugins/{p.name}", "sha256": sha256_of(p)} for p in plugins],
    }
    (folder / "device").mkdir()
    (folder / "device" / "manifest.json").write_text(json.dumps(sent))
    (folder / "device_report.json").write_text(json.dumps(report))
    rewritten(folder, target="a100")
    return folder
