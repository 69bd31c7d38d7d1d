"""The smallest part that fails, on its own: an ONNX file, its inputs, what ought to come out.

CASE/model.onnx     the nodes, with their weights    (or engine/: the vendor's whole graph)
CASE/inputs.npz     what they were given
CASE/expected.npz   what the right graph makes of it
CASE/case.json      which tensor fails, below which SQNR, and the command that shows it
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from deploy.artifacts.ladder import Culprit
from deploy.artifacts.model import Model
from deploy.artifacts.stored_arrays import stored_arrays
from deploy.backends import reference
from deploy.errors import BundleError
from deploy.files import folder_aside, json_bytes, write_aside
from deploy.ladder.engine_tensors import engine_steps
from deploy.ladder.first_fault import called
from deploy.ladder.tensors import Values
from deploy.metrics import sqnr_db
from deploy.surgery.graph import infer

SCHEMA_VERSION = 1
_CASE, _MODEL, _ENGINE = "case.json", "model.onnx", "engine"


@dataclass(frozen=True)
class Case:
    """What fails. precision: of the engine's float layers; "" for a graph."""

    culprit: Culprit
    stage: str
    precision: str = ""


def write_case(
    folder: Path, case: Case, model: Model, inputs: Values, expected: Values, engine: Path | None
) -> None:
    """The folder, complete or not at all. model: the part that fails, as `part_of` gives it;
    engine: the vendor's files, where it is the engine that fails."""
    with folder_aside(folder) as aside:
        model.save(aside / _MODEL)
        if engine is not None:
            shutil.copytree(engine, aside / _ENGINE)
        np.savez(aside / "inputs.npz", **inputs)  # type: ignore[arg-type]
        np.savez(aside / "expected.npz", **expected)  # type: ignore[arg-type]
        row = {
            "schema_version": SCHEMA_VERSION,
            **asdict(case),
            "command": f"deploy debug --replay {folder}",
        }
        write_aside(aside / _CASE, json_bytes(row))


@dataclass(frozen=True)
class Replayed:
    """What a case does now. observed_db: SQNR of the tensor against what is expected."""

    case: Case
    observed_db: float

    @property
    def fails(self) -> bool:
        return self.observed_db < self.case.culprit.expected_db


def replay(folder: Path) -> Replayed:
    """Run a case again; BundleError when the folder holds none."""
    case = _read(folder)
    tensor = case.culprit.tensor
    inputs, expected = (stored_arrays(folder / f"{name}.npz") for name in ("inputs", "expected"))
    if case.precision:
        found = engine_steps(
            folder / _ENGINE, case.precision, [tensor], [inputs], [{**inputs, **expected}]
        )[0]
    else:
        model = Model.load(folder / _MODEL)
        with reference.ReferenceEngine(model, threads=1, exact=True) as engine:
            found = engine.run(inputs)
    return Replayed(case, sqnr_db(expected[tensor], found[tensor]))


def part_of(model: Model, names: Sequence[str], tensor: str) -> tuple[Model, list[str]]:
    """The named nodes as a model that gives `tensor` out, and what it takes.

    Every type has to be written down (`observable`).
    """
    graph = model.proto.graph
    chosen = [node for node in graph.node if called(node) in set(names)]
    made = {o for node in chosen for o in node.output}
    stored = {w.name: w for w in graph.initializer}
    read = dict.fromkeys(n for node in chosen for n in node.input if n)
    kinds = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    takes = [n for n in read if n not in made and n not in stored]
    part = helper.make_graph(
        chosen,
        "case",
        [kinds[n] for n in takes],
        [kinds[tensor]],
        [stored[n] for n in read if n in stored],
    )
    proto = helper.make_model(part, opset_imports=model.proto.opset_import)
    proto.ir_version = model.proto.ir_version
    proto.functions.extend(model.proto.functions)
    onnx.checker.check_model(proto)
    return model.derive(infer(proto), ()), takes


def _read(folder: Path) -> Case:
    path = folder / _CASE
    try:
        row: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if row["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {row['schema_version']!r}")
        culprit = Culprit(**{**row["culprit"], "nodes": tuple(row["culprit"]["nodes"])})
        return Case(culprit, row["stage"], row["precision"])
    except OSError as error:
        raise BundleError(
            f"{path}: {error.strerror}; give a folder that `deploy debug` wrote"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: damaged ({error!r}); run deploy debug again") from None
