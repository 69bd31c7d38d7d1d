"""A vendor engine on disk, and what the vendor made of the graph."""

from __future__ import annotations

import json
from pathlib import Path

from deploy import registry
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.errors import BuildError
from deploy.files import json_bytes, write_aside
from deploy.target import Precision, Target

SETTINGS = "settings.json"


def build(model: Model, target: Target, precision: Precision, folder: Path) -> None:
    """Compile for the target and write the engine into an existing, empty folder."""
    backend = registry.module("backend", target.backend)
    engine: Engine = backend.build(model, target.engine, precision)
    with engine:
        _check_precision(engine, target, precision)
        engine.save(folder)
    chosen = {
        "backend": target.backend,
        "precision": precision,
        "engine": target.engine.model_dump(mode="json"),
        "files": sorted(path.name for path in folder.iterdir()),
    }
    write_aside(folder / SETTINGS, json_bytes(chosen))


def holds_only_an_engine(folder: Path) -> bool:
    """Whether `build` wrote everything in a folder, so that nothing is lost with it."""
    try:
        made = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["files"]
        return {path.name for path in folder.iterdir()} <= {SETTINGS, *made}
    except (OSError, ValueError, KeyError, TypeError):
        return False


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
