"""What each release's parser lacks, and which facts hold for a release without its own file."""

from __future__ import annotations

import onnx.defs
import pytest

from deploy import registry
from deploy.analysis.parser_operators import Release, first_with, release_for, releases
from deploy.target import Target

ALL = [*releases("tensorrt"), *releases("tensorrt_rtx")]


@pytest.mark.parametrize("release", ALL, ids=str)
def test_a_file_names_operators_of_onnx(release: Release) -> None:
    names = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert release.missing <= names
    assert 40 < len(release.missing) < 60
    for never in ("QLinearConv", "Unique", "DFT", "StringSplit", "SequenceAt"):
        assert release.lacks(never)
    for always in ("Conv", "HardSwish", "NonZero", "NonMaxSuppression", "Einsum", "GridSample"):
        assert not release.lacks(always)


@pytest.mark.parametrize(
    ("version", "file"),
    [
        *(("8.5.2", "8.5"), ("8.6.1", "8.6"), ("10.3.0", "10.0"), ("10.13.3", "10.13")),
        *(("10.16.1", "10.16"), ("11.4.0", "11.0"), ("8.4.1", "8.5")),
    ],
)
def test_the_nearest_older_release_holds(version: str, file: str) -> None:
    assert str(release_for("tensorrt", version)) == file


@pytest.mark.parametrize(
    ("operator", "since"),
    [
        ("Conv", "8.5"),
        ("LayerNormalization", "8.6"),
        ("GroupNormalization", "10.0"),
        ("Gelu", "10.0"),
        ("Mish", "10.0"),
        ("STFT", "10.13"),
        ("RMSNormalization", "10.16"),
        ("Swish", "11.0"),
        ("Unique", "None"),
    ],
)
def test_the_oldest_release_that_has_it(operator: str, since: str) -> None:
    assert str(first_with("tensorrt", operator)) == since


def test_an_operator_newer_than_the_opsets_is_lacking() -> None:
    assert release_for("tensorrt", "10.3.0").lacks("Attention")
    assert not release_for("tensorrt", "10.16.1").lacks("Attention")
    assert not release_for("tensorrt_rtx", "1.7.1").lacks("Swish")


def test_what_onnx_does_not_know_is_not_judged() -> None:
    assert not release_for("tensorrt", "8.5.2").lacks("ChannelShuffle")


@pytest.mark.parametrize("name", registry.names("target"))
def test_a_target_reads_no_newer_opset_than_its_releases(name: str) -> None:
    target = Target.load(name)
    nvidia = target.engine.nvidia
    if nvidia is None:
        return
    known = [release_for(nvidia.library, version).opsets[1] for version in nvidia.versions]
    assert target.quantization.highest_opset == min(known)
