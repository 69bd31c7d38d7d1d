"""Engines rewritten for a fixed batch, and the graph they were before that."""

from __future__ import annotations

from typing import Any

from deploy import registry
from deploy.artifacts.model import Model
from deploy.build import needs_sizes
from deploy.errors import DeployError
from deploy.fuse import fuse
from deploy.packaging.served import Served, read_json
from deploy.target import QUANTIZED


def rewritten_for_sizes(served: Served) -> list[str]:
    """The fusions in the bundle's engine that make one slower whose batch is free, by name."""
    return sorted(name for name in _applied(served) if needs_sizes(name))


def graph_of_any_size(served: Served) -> Model | None:
    """What the bundle's engine was compiled from, without those fusions; None where it has none, or
    the bundle doesn't keep such a graph."""
    sized = rewritten_for_sizes(served)
    folder = served.bundle.folder / "model"
    kinds = ("quantized",) if served.precision in QUANTIZED else ("compressed", "fused")
    found = [file for kind in kinds if (file := folder / f"{kind}.onnx").is_file()]
    if not sized or not found:
        return None
    rest = [name for name in _applied(served) if name not in sized]
    try:
        return fuse(Model.load(found[0]), rest)
    except DeployError:
        return None  # the engine as it is can still be freed


def _applied(served: Served) -> list[str]:
    """The fusions that the engine's graph went through for the compiler, each once, in order."""
    rows: Any = read_json(served.bundle.folder / "engine" / "settings.json").get("rewritten")
    applied = (
        str(row.get("rule"))
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and row.get("outcome") == "applied"
    )
    known = registry.names("fusion")
    return list(dict.fromkeys(name for name in applied if name in known))
