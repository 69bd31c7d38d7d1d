"""`deploy package` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def built(deploy: Callable[..., Any], here: Path) -> Path:
    """A bundle of the digits example in the working folder."""
    flags = ("--target", "cpu", "--fp32", "--eval-data", "test.npz", "-o", "bundle")
    assert deploy("build", "digits.onnx", *flags).code == 0
    return here / "bundle"


def test_a_bundle_becomes_a_repository_and_is_checked(
    deploy: Callable[..., Any], built: Path
) -> None:
    made = deploy("package", built, "--format", "triton", "-o", "repository", "--json")
    assert made.code == 0, made.err
    assert "run        docker run --rm" in made.err
    assert made.json["format"] == "triton"
    assert "tritonserver --model-repository=/models" in made.json["command"]
    checked = deploy("package", "--check", "repository")
    assert checked.code == 0
    assert checked.out == "repository: triton, nothing a server would refuse\n"
    config = Path("repository/digits/config.pbtxt")
    config.write_text(config.read_text().replace("count: 1", "count: -2"))
    checked = deploy("package", "--check", "repository", "--json")
    assert checked.code == 1
    assert checked.json["problems"] == ["digits: instance_group count -2; it is 1 or more"]
    assert checked.errors == ["error: repository: 1 found; mend them or package again"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bundle", "--format", "triton"), "-o missing"),
        (("bundle", "-o", "x"), "--format missing"),
        (("bundle", "--format", "tritom", "-o", "x"), "unknown format 'tritom' (did you mean"),
        (("--check", "x", "--format", "ovms"), "--check takes a folder alone"),
        (("--check", "nowhere"), "no such folder"),
        (("bundle", "--format", "triton", "-o", "x", "--name", "../x"), "can't be the name"),
        (("bundle", "--format", "ovms", "-o", "x", "--instances", "0"), "--instances 0"),
        (("bundle", "--format", "triton", "-o", "x", "--triton-tag", "x"), "--triton-tag 'x'"),
        (("bundle", "--format", "triton", "-o", "bundle"), "no package of ours"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], message: str, deploy: Callable[..., Any], built: Path
) -> None:
    ran = deploy("package", *arguments)
    assert ran.code == 2, ran.err
    assert len(ran.errors) == 1
    assert message in ran.errors[0]
    assert not Path("x").exists()


def test_what_is_no_bundle_is_said(deploy: Callable[..., Any], here: Path) -> None:
    ran = deploy("package", ".", "--format", "triton", "-o", "x")
    assert ran.code == 1
    assert "no manifest.json, so not a bundle" in ran.errors[0]
