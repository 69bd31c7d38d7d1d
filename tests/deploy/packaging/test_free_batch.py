"""An engine whose batch is freed: what is said where that makes it slower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from helpers import weight
from images import image_model

from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import package_bundle
from deploy.pipeline import Job, deploy_model
from deploy.recipe import Recipe

SLOWER = "rewritten for a batch of 1 (interleave_rows) and is slower with a free one"


ONE = "y = Conv<strides=[2,2]>(x, w)"
TWO = "c = Conv<strides=[2,2]>(x, w) r = Relu(c) y = Conv(r, v)"


def of_images(folder: Path, body: str = ONE, **more: object) -> Path:
    """A bundle whose engine reads rows of an image as they lie."""
    model = image_model(
        f"g (float[N,3,8,8] x) => (float[N,5,4,4] y) {{ {body} }}",
        {"w": weight(5, 3, 2, 2), "v": weight(5, 5, 1, 1)},
    )
    onnx.save(model.proto, folder / "m.onnx")
    x = np.random.default_rng(5).standard_normal((6, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    keys = {"target": "cpu", "precision": "fp32", "eval_data": str(folder / "x.npz"), **more}
    deploy_model(Job(folder / "m.onnx", Recipe.read(None, keys), folder / "bundle"))
    return folder / "bundle"


@pytest.mark.parametrize("form", ["ovms", "triton"])
def test_it_is_compiled_from_the_graph_before_the_rewrite(form: str, tmp_path: Path) -> None:
    """With the numbers of the engine in the bundle, for a batch of any size, without a word."""
    bundle = of_images(tmp_path)
    made = package_bundle(bundle, form, tmp_path / "r", "m", PackageOptions())
    assert not [n for n in made.written.notes if "slower" in n]
    (freed,) = (tmp_path / "r").rglob("model.xml")
    assert b"interleave_rows" in (bundle / "engine" / "model.xml").read_bytes()
    assert b"interleave_rows" not in freed.read_bytes()
    x = np.random.default_rng(6).standard_normal((3, 3, 8, 8)).astype(np.float32)
    own, any_size = (ov.Core().compile_model(file) for file in (bundle / "engine/model.xml", freed))
    one_by_one = np.concatenate([own(x[i : i + 1])["y"] for i in range(3)])
    np.testing.assert_allclose(any_size(x)["y"], one_by_one, rtol=1e-2, atol=1e-2)


def test_an_int8_engine_too(tmp_path: Path) -> None:
    bundle = of_images(tmp_path, TWO, precision="int8", data=str(tmp_path / "x.npz"), search_s=0)
    assert b"columns_as_channels" in (bundle / "engine" / "model.xml").read_bytes()
    package_bundle(bundle, "ovms", tmp_path / "r", "m", PackageOptions())
    (freed,) = (tmp_path / "r").rglob("model.xml")
    assert b"columns_as_channels" not in freed.read_bytes()
    x = np.random.default_rng(6).standard_normal((3, 3, 8, 8)).astype(np.float32)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    files = (bundle / "engine/model.xml", freed)
    own, any_size = (ov.Core().compile_model(file, "CPU", exact) for file in files)
    one_by_one = np.concatenate([own(x[i : i + 1])["y"] for i in range(3)])
    np.testing.assert_array_equal(any_size(x)["y"], one_by_one)


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    """OpenVINO numbers what it adds as it goes."""
    bundle = of_images(tmp_path)
    found = []
    for name in "ab":
        package_bundle(bundle, "ovms", tmp_path / name, "m", PackageOptions())
        (freed,) = (tmp_path / name).rglob("model.xml")
        found.append(freed.read_bytes() + freed.with_suffix(".bin").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("form", ["ovms", "triton"])
def test_without_that_graph_it_is_said_what_would_be_faster(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.packaging.free_batch.graph_of_any_size", lambda served: None)
    bundle = of_images(tmp_path)
    (note,) = (n for n in notes(bundle, form, tmp_path) if SLOWER in n)
    assert "--batch dynamic" in note


def test_nor_where_it_gives_other_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the bundle keeps beside its engine is trusted as little as anything in it."""
    bundle = of_images(tmp_path)
    other = image_model(
        f"g (float[N,3,8,8] x) => (float[N,5,4,4] y) {{ {ONE} }}", {"w": weight(5, 3, 2, 2, seed=3)}
    )
    monkeypatch.setattr("deploy.packaging.free_batch.graph_of_any_size", lambda served: other)
    assert [n for n in notes(bundle, "ovms", tmp_path) if SLOWER in n]


@pytest.mark.parametrize("form", ["ovms", "triton"])
def test_an_engine_of_a_free_batch_is_what_it_should_be(form: str, tmp_path: Path) -> None:
    bundle = of_images(tmp_path, batch="dynamic")
    assert not [n for n in notes(bundle, form, tmp_path) if "slower" in n]


def test_groups_of_a_fixed_size_are_as_fast(tmp_path: Path) -> None:
    found = notes(of_images(tmp_path), "triton", tmp_path, PackageOptions(max_batch=4))
    assert not [n for n in found if SLOWER in n]


def notes(
    bundle: Path, form: str, tmp_path: Path, options: PackageOptions | None = None
) -> tuple[str, ...]:
    made = package_bundle(bundle, form, tmp_path / "r", "m", options or PackageOptions())
    return tuple(made.written.notes)
