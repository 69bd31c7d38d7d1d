"""onnx-deploy: from an ONNX model to a vendor engine that is fast, small and provably right.

from pathlib import Path
from deploy import Job, Recipe, deploy_model

recipe = Recipe(target="cpu", precision="int8", data="samples/")
bundle = deploy_model(Job(Path("model.onnx"), recipe, Path("out")))
"""

from __future__ import annotations

import importlib
from typing import Any

# public name -> where it lives; imported when first asked for, so that `import deploy` is free
_PUBLIC = {
    "Bundle": "deploy.artifacts.bundle",
    "DeployError": "deploy.errors",
    "Engine": "deploy.artifacts.engine",
    "Job": "deploy.pipeline",
    "Model": "deploy.artifacts.model",
    "ParityReport": "deploy.artifacts.parity",
    "Ranges": "deploy.artifacts.ranges",
    "Recipe": "deploy.recipe",
    "Target": "deploy.target",
    "deploy_model": "deploy.pipeline",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'deploy' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
