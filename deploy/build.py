"""A vendor engine on disk, and what the vendor made of the graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy import registry
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model, as_rows
from deploy.errors import BuildError
from deploy.files import json_bytes, write_aside
from deploy.fuse import fuse
from deploy.nvidia.dialect import as_judged, as_shipped
from deploy.target import Precision, Target

SETTINGS = "settings.json"


def build(model: Model, target: Target, precision: Precision, folder: Path) -> None:
    """Compile for the target and write the engine into an existing, empty folder."""
    lowered = for_compiler(model, target, precision)
    with compiled(lowered, target, precision) as engine:
        _check_precision(engine, target, precision)
        engine.save(folder)
    chosen = {
        "backend": target.backend,
        "precision": precision,
        # where this machine caches is no property of the engine, which may go to another
        "engine": {**target.engine.model_dump(mode="json"), "cache_dir": ""},
        "rewritten": as_rows(lowered.decisions) if lowered is not model else [],
        "files": sorted(path.name for path in folder.iterdir()),
    }
    write_aside(folder / SETTINGS, json_bytes(chosen))


def for_compiler(model: Model, target: Target, precision: Precision) -> Model:
    """The graph as the vendor gets it: operators it is slow at replaced by what it is fast at, and
    for NVIDIA's in the opset and the types its parser takes."""
    if target.engine.nvidia is None:
        wanted = _of_these_sizes(model, target)
        return fuse(model, wanted) if wanted else model
    judged = target.backend == "reference"
    return (as_judged if judged else as_shipped)(model, target, precision)


def _of_these_sizes(model: Model, target: Target) -> list[str]:
    """The target's engine fusions, less those that only pay for fixed sizes where the batch stays
    free (a free height or width they see for themselves)."""
    free = target.engine.batch == "dynamic" and any(s.shape[:1] == (None,) for s in model.inputs)
    return [name for name in target.engine_fusions if not (free and needs_sizes(name))]


def needs_sizes(fusion: str) -> bool:
    """Whether a fusion makes engines slower where a size is free."""
    return bool(getattr(registry.module("fusion", fusion), "FIXED_SIZES", False))


def compiled(model: Model, target: Target, precision: Precision) -> Engine:
    """The vendor's engine in memory, of a graph that `for_compiler` gave."""
    engine: Engine = registry.module("backend", target.backend).build(
        model, target.engine, precision
    )
    return engine


def holds_only_an_engine(folder: Path) -> bool:
    """Whether `build` wrote everything in a folder, so that nothing is lost with it."""
    try:
        made = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["files"]
        return {path.name for path in folder.iterdir()} <= {SETTINGS, *made}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def rewrites(folder: Path) -> list[dict[str, Any]]:
    """What `build` did to the graph for the compiler, as rows of decisions."""
    return list(json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["rewritten"])


def load_engine(folder: Path, target: Target, precision: Precision) -> Engine:
    """The engine of that folder, ready to run: what parity and bench judge is what is shipped."""
    backend = registry.module("backend", target.backend)
    engine: Engine = backend.load(folder, target.engine, precision)
    return engine


def _check_precision(engine: Engine, target: Target, precision: Precision) -> None:
    """Refuse to call an engine bf16 where the device of this machine computes something else."""
    got = engine.properties().get("inference_precision", "")
    if target.host and precision == "bf16" and got not in ("", "bf16"):
        raise BuildError(
            f"this machine computes in {got}, it has no bf16; use --fp32, or --int8 with --data"
        )
