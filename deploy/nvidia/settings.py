"""What a TensorRT engine for one NVIDIA device is built with: a target's `[engine.nvidia]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rung = Literal["predicted", "api", "compiler", "device"]
# the evidence ladder, lowest first: how far something was proven, in words
RUNGS: dict[Rung, str] = {
    "predicted": "predicted",
    "api": "checked against the vendor's real API",
    "compiler": "built by the vendor's compiler",
    "device": "ran on the device",
}


class Nvidia(BaseModel):
    """The device's software and hardware.

    library: the Python module that builds and runs there. versions: releases of it the device has,
    as major.minor.patch; engines and caches are written for the first. compute_capability: of the
    GPU, "7.2"; cuda: the toolkit's version; jetpack: the Jetson release, "" elsewhere.
    typing: "strong" where the graph alone decides every layer's type, "weak" where builder flags
    let the compiler choose. dla_cores: accelerators the chip has; use_dla: whether layers go there
    first. plugins: folders of `plugins/` whose kernels this device may use. workspace_bytes: what
    the compiler's tactics may take; 0 leaves the vendor's default. version_compatible: engines that
    newer releases of the same major version read; hardware_compatible: that GPUs from Ampere on
    read; both can cost speed. shown: how far this target as
    such was proven; a report says it of one build. sizes: of a build, the shape of its samples per
    input that has free ones, which an engine's optimization profile lies around.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    library: Literal["tensorrt", "tensorrt_rtx"] = "tensorrt"
    versions: Annotated[
        tuple[Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")], ...], Field(min_length=1)
    ]
    compute_capability: str = Field(pattern=r"^\d+\.\d$")
    cuda: str = Field(pattern=r"^\d+\.\d+$")
    jetpack: str = ""
    typing: Literal["weak", "strong"]
    dla_cores: int = Field(default=0, ge=0)
    use_dla: bool = False
    plugins: tuple[str, ...] = ()
    workspace_bytes: int = Field(default=0, ge=0)
    version_compatible: bool = False
    hardware_compatible: bool = False
    shown: Rung = "predicted"
    sizes: dict[str, tuple[int, ...]] = {}

    @model_validator(mode="after")
    def _dla_exists(self) -> Nvidia:
        if self.use_dla and not self.dla_cores:
            raise ValueError("use_dla = true with dla_cores = 0; give the number of cores")
        return self

    @property
    def version(self) -> tuple[int, int, int]:
        """The release that is written for."""
        major, minor, patch = (int(part) for part in self.versions[0].split("."))
        return major, minor, patch

    @property
    def sm(self) -> int:
        """The compute capability as compilers write it: 72."""
        return int(self.compute_capability.replace(".", ""))
