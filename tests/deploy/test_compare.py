"""Engines and bundles from elsewhere don't choose what this machine writes or how much it holds."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import conv

from deploy.artifacts.stored_arrays import stored_arrays
from deploy.build import build
from deploy.compare import open_candidate
from deploy.errors import BundleError
from deploy.recipe import Recipe
from deploy.target import Target


def settings_with(folder: Path, **changes: Any) -> None:
    path = folder / "settings.json"
    settings = json.loads(path.read_text())
    settings["engine"] |= changes
    path.write_text(json.dumps(settings))


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    folder.mkdir()
    build(conv(), Target.load("cpu"), "fp32", folder)
    return folder


def test_an_engine_names_no_cache(engine: Path, tmp_path: Path) -> None:
    settings_with(engine, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(BundleError, match=r"settings\.json: engine\.cache_dir = '/"):
        open_candidate(engine, Recipe.read(None, {"target": "cpu"}))
    assert not (tmp_path / "cache").exists()


def test_an_engine_has_no_property_of_its_own(engine: Path) -> None:
    settings_with(engine, LOG_FILE="/tmp/log")
    with pytest.raises(BundleError, match=r"settings\.json: engine: unknown key 'LOG_FILE'"):
        open_candidate(engine, Recipe.read(None, {"target": "cpu"}))


def test_a_targets_cache_is_used_and_stays_out_of_the_engine(tmp_path: Path) -> None:
    target = Target.load("cpu")
    cached = target.engine.model_copy(update={"cache_dir": str(tmp_path / "cache")})
    folder = tmp_path / "engine"
    folder.mkdir()
    build(conv(), target.model_copy(update={"engine": cached}), "fp32", folder)
    assert (tmp_path / "cache").is_dir()
    assert json.loads((folder / "settings.json").read_text())["engine"]["cache_dir"] == ""
    open_candidate(folder, Recipe.read(None, {"target": "cpu"})).close()


def test_an_array_that_claims_more_than_there_is(tmp_path: Path) -> None:
    header = io.BytesIO()
    claimed = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 1, 8, 8)}
    np.lib.format.write_array_header_1_0(header, claimed)
    with zipfile.ZipFile(tmp_path / "samples.npz", "w") as archive:
        archive.writestr("image.npy", header.getvalue())
    with pytest.raises(BundleError, match=r"samples\.npz: damaged: image\.npy unpacks to 256000"):
        stored_arrays(tmp_path / "samples.npz")
