"""The plugins there are: what each folder has, and which targets use it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy import registry
from deploy.errors import RecipeError
from deploy.no_effect import named_fusions
from deploy.plugin.build import CUDA_SOURCE, OPENVINO_SOURCE, TENSORRT_SOURCES
from deploy.plugin.ops import op_type, plugin_module
from deploy.target import Target

# what a file in the folder gives, in words
_PARTS = {
    OPENVINO_SOURCE: "OpenVINO kernel",
    CUDA_SOURCE: "CUDA kernel",
    TENSORRT_SOURCES[0]: "TensorRT 8 glue",
    TENSORRT_SOURCES[1]: "TensorRT 10+ glue",
    "aot.py": "kernel in the TensorRT engine",
}


@dataclass(frozen=True)
class Row:
    """One plugin; `problem` says why its op.py can't be used, "" where it can."""

    name: str
    op: str
    folder: Path
    parts: tuple[str, ...]
    targets: tuple[str, ...]
    problem: str

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def rows() -> list[Row]:
    """Every plugin, the built-in ones and those that were added, by name."""
    targets = [Target.load(name) for name in registry.names("target")]
    return [_row(name, targets) for name in registry.names("plugin")]


def _row(name: str, targets: list[Target]) -> Row:
    folder = registry.path("plugin", name).parent
    parts, problem = ["expansion", "NumPy truth"], ""
    try:
        plugin_module(name)
    except RecipeError as error:
        parts, problem = [], str(error)
    parts += [words for file, words in _PARTS.items() if (folder / file).is_file()]
    users = tuple(target.name for target in targets if _uses(target, name))
    return Row(name, op_type(name), folder, tuple(parts), users, problem)


def _uses(target: Target, name: str) -> bool:
    """Whether a target's graphs may get this operator."""
    nvidia = target.engine.nvidia
    listed = nvidia is not None and name in nvidia.plugins
    return listed or f"plugin_{name}" in named_fusions(target)
