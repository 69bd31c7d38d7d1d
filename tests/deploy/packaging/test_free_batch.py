"""An engine whose batch is freed: what is said where that makes it slower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import model_from, weight

from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import package_bundle
from deploy.pipeline import Job, deploy_model
from deploy.recipe import Recipe

SLOWER = "rewritten for a batch of 1 (interleave_rows) and is slower with a free one"


def of_images(folder: Path, **more: object) -> Path:
    """A bundle whose engine reads rows of an image as they lie."""
    model = model_from(
        "g (float[N,3,8,8] x) => (float[N,5,4,4] y) { y = Conv<strides=[2,2]>(x, w) }",
        {"w": weight(5, 3, 2, 2)},
    )
    onnx.save(model.proto, folder / "m.onnx")
    x = np.random.default_rng(5).standard_normal((6, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    keys = {"target": "cpu", "precision": "fp32", "eval_data": str(folder / "x.npz"), **more}
    deploy_model(Job(folder / "m.onnx", Recipe.read(None, keys), folder / "bundle"))
    return folder / "bundle"


@pytest.mark.parametrize("form", ["ovms", "triton"])
def test_it_is_said_what_would_be_faster(form: str, tmp_path: Path) -> None:
    bundle = of_images(tmp_path)
    (note,) = (n for n in notes(bundle, form, tmp_path) if SLOWER in n)
    assert "--batch dynamic" in note


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
