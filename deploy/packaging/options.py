"""What the user chooses about a package, beyond its format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deploy.errors import RecipeError

_MOST = 4096


@dataclass(frozen=True)
class PackageOptions:
    """version: of the served model, its folder's name. max_batch: how many samples the server may
    group; 0 lets a format decide. instances: requests computed at the same time. triton_tag: the
    container's month. plugin_libraries: files that a TensorRT engine's plugins need.
    """

    version: int = 1
    max_batch: int = 0
    instances: int = 1
    triton_tag: str | None = None
    plugin_libraries: tuple[Path, ...] = field(default=())

    def __post_init__(self) -> None:
        for name, low in (("version", 1), ("max_batch", 0), ("instances", 1)):
            value = getattr(self, name)
            if not low <= value <= _MOST:
                flag = f"--{name.replace('_', '-')}" if name != "version" else "--model-version"
                raise RecipeError(f"{flag} {value}: give a number from {low} to {_MOST}")
