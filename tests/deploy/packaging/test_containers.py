"""Triton's container follows the engine's TensorRT; a mismatch is refused with both values."""

from __future__ import annotations

import pytest

from deploy.errors import RecipeError
from deploy.packaging.containers import (
    container_for_openvino,
    container_for_tensorrt,
    known_containers,
)
from deploy.registry import names
from deploy.target import Target


def test_the_table_is_in_order_and_says_where_it_is_from() -> None:
    tags = [container.tag for container in known_containers()]
    assert tags == sorted(set(tags))
    assert all(container.source and container.tensorrt for container in known_containers())


@pytest.mark.parametrize(
    ("version", "tag"),
    [("8.5.2", "23.01"), ("8.5.2.2", "23.01"), ("8.6.1", "24.01"), ("10.16.1.11", "26.05")],
)
def test_the_tag_follows_the_version(version: str, tag: str) -> None:
    container = container_for_tensorrt(version, None)
    assert container.image == f"nvcr.io/nvidia/tritonserver:{tag}-py3"


def test_a_mismatch_is_refused_with_both_versions() -> None:
    with pytest.raises(
        RecipeError, match=r"has TensorRT 10\.16\.1, the engine was built with 8\.5"
    ):
        container_for_tensorrt("8.5.2", "26.05")


def test_what_no_known_container_has_is_refused_with_what_there_is() -> None:
    with pytest.raises(RecipeError, match=r"built with TensorRT 11\.4\.0; known are: .*26\.05 has"):
        container_for_tensorrt("11.4.0", None)


def test_a_month_of_the_users_is_taken_with_its_version() -> None:
    assert container_for_tensorrt("11.4.0", "26.11=11.4.0").tag == "26.11"
    with pytest.raises(RecipeError, match=r"--triton-tag 26\.11: which TensorRT"):
        container_for_tensorrt("11.4.0", "26.11")
    with pytest.raises(RecipeError, match=r"26\.05-py3 has TensorRT 10\.16\.1"):
        container_for_tensorrt("11.4.0", "26.05=11.4.0")
    with pytest.raises(RecipeError, match="give a month like"):
        container_for_tensorrt("11.4.0", "latest")
    assert container_for_openvino("26.11").tag == "26.11"


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(RecipeError, match="isn't a release"):
        container_for_tensorrt("10.x", None)


def test_which_targets_have_a_container() -> None:
    """A new target, or a new row of the table, shows here."""
    known = {container.tensorrt for container in known_containers()}
    served = {}
    for name in names("target"):
        nvidia = Target.load(name).engine.nvidia
        if nvidia is not None and nvidia.library == "tensorrt":
            served[name] = bool(known & set(nvidia.versions))
    assert all(served.values()), served


def test_a_jetson_has_images_of_its_own() -> None:
    container = container_for_tensorrt("10.3.0", None, "6.1")
    assert container.image.endswith("-py3-igpu")
    assert not container_for_tensorrt("10.3.0", None).image.endswith("igpu")


def test_jetpack_5_has_none() -> None:
    with pytest.raises(RecipeError, match=r"with JetPack 5\.1: NVIDIA publishes .* JetPack 6\.0"):
        container_for_tensorrt("8.5.2", None, "5.1")
