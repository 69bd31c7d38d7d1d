"""`deploy diff` on two real builds of the digits example."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import run

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
# as tests/cli/conftest.py gives it
Deploy = Callable[..., Any]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A float32 bundle, and one of another precision."""
    folder = tmp_path_factory.mktemp("bundles")
    built = folder / "float32", folder / "int8"
    asked = ["--fp32"], ["--int8", "--data", DIGITS / "calib.npz", "--effort", "fast"]
    for output, how in zip(built, asked, strict=True):
        common = [DIGITS / "digits.onnx", "--eval-data", DIGITS / "test.npz", "-o", output]
        assert run([str(word) for word in ("build", *common, *how)]) == 0
    return built


def test_says_what_matters_and_writes_the_page(
    deploy: Deploy, two: tuple[Path, Path], tmp_path: Path
) -> None:
    ran = deploy("diff", *two, "-o", tmp_path / "diff.html", "--json")
    assert ran.code == 0
    assert "Another precision: fp32, then int8." in ran.err
    assert "layers went from fp32 to INT8" in ran.err
    assert f"report  {tmp_path / 'diff.html'}" in ran.err
    assert ran.json["inputs"]["comparable"]
    assert ran.json["results"]["outputs"][0]["change"] < -20
    page = (tmp_path / "diff.html").read_text(encoding="utf-8")
    assert "What matters first" in page and len(page.encode()) < 3_000_000


def test_a_bundle_and_itself(deploy: Deploy, two: tuple[Path, Path]) -> None:
    ran = deploy("diff", two[0], two[0])
    assert ran.code == 0
    assert "Nothing that counts differs." in ran.out


def test_a_folder_that_isnt_a_bundle(
    deploy: Deploy, two: tuple[Path, Path], tmp_path: Path
) -> None:
    ran = deploy("diff", two[0], tmp_path)
    assert ran.code == 1
    assert ran.errors == [
        f"error: {tmp_path}: no manifest.json, so not a bundle; give the folder of a build"
    ]


def test_a_folder_in_place_of_a_page(
    deploy: Deploy, two: tuple[Path, Path], tmp_path: Path
) -> None:
    ran = deploy("diff", *two, "-o", tmp_path)
    assert ran.code == 2
    assert "is a folder; -o takes the name of an HTML file" in ran.err
