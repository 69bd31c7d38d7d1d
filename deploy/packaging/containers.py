"""The Triton container whose TensorRT, or OpenVINO, is the one an engine needs.

A Jetson needs images of its own: `<tag>-py3-igpu`, which NVIDIA has published from 23.12 on, for
JetPack 6.0 and later (release notes of Triton 2.41). JetPack 5 has none.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.errors import RecipeError

_TABLE = Path(__file__).with_name("triton_containers.toml")
_TAG = re.compile(r"(\d\d\.\d\d)(?:=(\d+\.\d+\.\d+)(?:\.\d+)?)?")
IMAGE = "nvcr.io/nvidia/tritonserver"
_FIRST_IGPU_JETPACK, _IGPU_JETPACK = 6, "6."


@dataclass(frozen=True)
class Container:
    """One month's image; tensorrt and openvino as major.minor.patch, openvino "" if not known."""

    tag: str
    tensorrt: str
    openvino: str = ""
    source: str = ""
    jetson: bool = False

    @property
    def image(self) -> str:
        return f"{IMAGE}:{self.tag}-py3{'-igpu' if self.jetson else ''}"


def known_containers() -> list[Container]:
    """What the table knows, oldest first."""
    rows = tomllib.loads(_TABLE.read_text(encoding="utf-8"))["containers"]
    return [Container(**row) for row in rows]


def container_for_tensorrt(version: str, asked: str | None, jetpack: str = "") -> Container:
    """The container with that TensorRT; RecipeError, with both releases, where there is none.

    asked: the tag the user wants, "26.05", or "26.05=10.16.1" for one the table doesn't know.
    jetpack: the Jetson release the engine was built on, "" elsewhere.
    """
    if jetpack and int(jetpack.partition(".")[0]) < _FIRST_IGPU_JETPACK:
        raise RecipeError(
            f"the engine is a Jetson's with JetPack {jetpack}: NVIDIA publishes Triton containers "
            "for Jetsons from JetPack 6.0 on; older ones have an archive with some releases, which "
            "this command doesn't prepare, or load engine/model.engine there with TensorRT itself"
        )
    return replace(_with_tensorrt(version, asked), jetson=jetpack.startswith(_IGPU_JETPACK))


def _with_tensorrt(version: str, asked: str | None) -> Container:
    release = _release(version)
    if asked is not None:
        chosen = _asked(asked)
        if chosen.tensorrt != release:
            raise RecipeError(
                f"--triton-tag {asked}: that container has TensorRT {chosen.tensorrt}, the engine "
                f"was built with {release} and loads in no other; {_advice(release)}"
            )
        return chosen
    fitting = [c for c in known_containers() if c.tensorrt == release]
    if not fitting:
        raise RecipeError(
            f"the engine was built with TensorRT {release}; {_advice(release)}, or rebuild it with "
            "one of these"
        )
    return fitting[-1]


def container_for_openvino(asked: str | None) -> Container:
    """The newest container of which the table knows the OpenVINO, or the one asked for."""
    if asked is not None:
        return _asked(asked, any_tensorrt=True)
    return [c for c in known_containers() if c.openvino][-1]


def _asked(asked: str, *, any_tensorrt: bool = False) -> Container:
    found = _TAG.fullmatch(asked)
    if not found:
        raise RecipeError(f"--triton-tag {asked!r}: give a month like 26.05, or 26.05=10.16.1")
    tag, said = found.groups()
    for container in known_containers():
        if container.tag == tag:
            if said and said != container.tensorrt:
                raise RecipeError(
                    f"--triton-tag {asked}: {container.image} has TensorRT {container.tensorrt} "
                    f"({container.source})"
                )
            return container
    if not said and not any_tensorrt:
        raise RecipeError(
            f"--triton-tag {tag}: which TensorRT that container has isn't known here; look it up "
            f"in its release notes and give --triton-tag {tag}=MAJOR.MINOR.PATCH"
        )
    return Container(tag, said or "", source="given by the user")


def _advice(release: str) -> str:
    known = ", ".join(f"{c.tag} has {c.tensorrt}" for c in known_containers())
    return f"known are: {known}; for another month give --triton-tag TAG={release}"


def _release(version: str) -> str:
    """major.minor.patch of a version with or without a build number."""
    parts = version.split(".")
    if len(parts) < 3 or not all(part.isdigit() for part in parts[:3]):
        raise RecipeError(f"TensorRT {version!r} in the bundle isn't a release; import it again")
    return ".".join(parts[:3])
