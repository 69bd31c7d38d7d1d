"""The vendor's engine against the same graph simulated, as a whole and layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx

from calibrators.samples import Sample
from deploy.artifacts.engine import Engine
from deploy.artifacts.ladder import Culprit, TensorError
from deploy.artifacts.model import Model
from deploy.batches import fixed_batch
from deploy.ladder.engine_tensors import engine_steps, is_open, tensors
from deploy.ladder.first_fault import called
from deploy.ladder.stepped import steps
from deploy.ladder.tensors import (
    Difference,
    Feeding,
    Values,
    differences,
    makers,
    observed,
    runs_of,
    typed,
)

# SQNR of the outputs that engines of the shared models keep in each float type, less some: f32
# 118 dB and more, bf16 27
_WHOLE_DB = {"f32": 60.0, "f16": 40.0, "bf16": 20.0}
# of one layer out of equal inputs: 118 (f32), 57 (f32 around INT8, where a value may fall on the
# other side of a step), 39 (bf16)
_LAYER_DB = {"f32": 60.0, "f16": 40.0, "bf16": 25.0}
_STEP_DB = 30.0


class Shipped(Protocol):
    """An engine, what it was built for, and the folder it can be looked into at."""

    @property
    def engine(self) -> Engine: ...

    @property
    def precision(self) -> str: ...

    @property
    def folder(self) -> Path | None: ...


@dataclass(frozen=True)
class EngineLook:
    """allowed: the least SQNR of the outputs against the simulation, and why."""

    allowed: tuple[float, str]
    culprits: tuple[Culprit, ...]
    tensors: tuple[TensorError, ...]


def engine_look(
    shipped: Shipped,
    simulated: Model,
    samples: Sequence[Sample],
    feeding: Feeding,
    bound: Mapping[str, float],
) -> EngineLook:
    """What the engine may differ by, and the layers that differ by more.

    bound: per output what rounding to the next step instead costs (`rounding_bound`); empty for
    float graphs.
    """
    kind = float_type(shipped)
    allowed, layer = _allowed(kind, bound)
    folder = shipped.folder
    # an engine of several samples a run isn't fed one sample's tensors: its outputs are judged
    several = fixed_batch(shipped.engine.inputs) > 1
    if folder is None or several or not is_open(folder):
        return EngineLook(allowed, (), ())
    found = _local(folder, kind, simulated, samples, feeding)
    operators = makers(simulated)
    nodes = {o: n for n in simulated.proto.graph.node for o in n.output}
    culprits = tuple(
        Culprit(
            called(nodes[name]),
            operators[name],
            name,
            one.sqnr_db,
            layer,
            (called(nodes[name]),),
            f"out of the same inputs the engine's {name!r} reaches {one.sqnr_db:.1f} dB of the "
            f"simulation's; kernels in {kind} reach {layer:g} dB and more",
        )
        for name, one in found.items()
        if one.sqnr_db < layer
    )
    rows = tuple(one.row(name, operators[name]) for name, one in found.items())
    return EngineLook(allowed, culprits, rows)


def float_type(shipped: Shipped) -> str:
    """What the engine's float layers compute in: as it says, or as it was built for."""
    told = shipped.engine.properties().get("inference_precision")
    if told:
        return told
    if any(spec.dtype == np.float16 for spec in shipped.engine.outputs):
        return "f16"
    return {"fp16": "f16", "bf16": "bf16"}.get(shipped.precision, "f32")


def _allowed(kind: str, bound: Mapping[str, float]) -> tuple[tuple[float, str], float]:
    whole, layer = _WHOLE_DB.get(kind, 20.0), _LAYER_DB.get(kind, 25.0)
    if not bound:
        return (whole, f"kernels in {kind} reach that and more"), layer
    least = min(bound.values())
    why = f"every value rounded to the next step instead leaves {least:.1f} dB, measured"
    if whole < least:
        least, why = whole, f"layers outside INT8 run in {kind}"
    return (least, why), min(layer, _STEP_DB)


def _local(
    folder: Path, kind: str, simulated: Model, samples: Sequence[Sample], feeding: Feeding
) -> dict[str, Difference]:
    """Every tensor that both have, computed from the simulation's values in both."""
    runs = [feeds for feeds, count in runs_of(simulated, samples[:1])]
    known = typed(simulated).keys() & _computed(simulated)
    names = [name for name in tensors(folder) if name in known]
    values: list[Values] = [*observed(simulated, names, runs, feeding)]
    mine = steps(simulated, names, runs, values, feeding)
    fed = [feeding.of(simulated, run) for run in runs]
    theirs = engine_steps(folder, kind, names, fed, values)
    shared = [name for name in names if name in theirs[0]]
    return differences(mine, theirs, shared, [1] * len(runs))


def _computed(model: Model) -> set[str]:
    """Tensors that depend on an input: a wrong weight shows in the layer that reads it."""
    found = {spec.name for spec in model.inputs}
    for node in model.proto.graph.node:
        # a body may read anything
        nested = any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
        if nested or found & set(node.input):
            found |= set(node.output)
    return found
