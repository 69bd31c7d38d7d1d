"""What INT8 costs layer by layer: the noise each one alone brings to the model's outputs.

Noise of single layers nearly adds up. Predicted on 32 calibration samples against measured on the
test samples, the whole line with bias correction, asymmetric / symmetric (TensorRT form), dB:
mobilenetv2 22.0 and 21.8 / 20.9 and 21.1, resnet20 31.9 and 31.0 / 29.6 and 28.5, shufflenetv1 28.4
and 26.6 / 24.8 and 23.6, dscnn_kws 36.1 and 35.7 / 24.5 and 25.3. So the list says where accuracy
is lost, and what the whole will lose without the worst of it.

The float graph is run once over all samples, halted in front of each layer; from there its rest
runs with this layer in integers. What an element of an output is off by on average is left out:
bias correction takes it back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.artifacts.precision import LayerNoise
from deploy.artifacts.ranges import Ranges
from deploy.errors import RecipeError, nearest
from deploy.placed import place
from deploy.placement import NOTHING
from deploy.sensitivity.lone_layers import LoneLayer, lone_layers
from deploy.sensitivity.lone_runs import LoneRuns
from deploy.target import Target

# under a time budget: one pass over the float graph for so many layers
_PORTION = 8
# what no noise at all, and outputs that aren't numbers any more, are written as
_SILENT_DB, _BROKEN_DB = -200.0, 200.0


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    layers: only these, by label. known: dB of layers that were measured before, with the same
    model, ranges and samples. budget_s: begin no further layer after so many seconds of `clock`;
    those that look worst come first then. advance: told of each layer that is done. measured: told
    its dB, so that an interrupted run can be taken up.
    """

    layers: Collection[str] | None = None
    known: Mapping[str, float] = field(default_factory=dict)
    budget_s: float | None = None
    clock: Callable[[], float] = time.monotonic
    advance: Callable[[int], None] = lambda count: None
    measured: Callable[[str, float], None] = lambda name, noise_db: None


@dataclass(frozen=True)
class Sensitivity:
    """layers: the noisiest first. unmeasured: those the time didn't reach, in the graph's order."""

    layers: tuple[LayerNoise, ...]
    unmeasured: tuple[str, ...] = ()


_ALL = Effort()


def sensitivity(
    model: Model,
    ranges: Ranges,
    target: Target,
    samples: Sequence[Sample],
    effort: Effort = _ALL,
) -> Sensitivity:
    """The noise of every layer that the target would run in INT8; the same for the same input.

    model: float, the one the ranges were made of. samples: as many are used as fit into memory.
    Several outputs count the same each, integers not at all; of integers alone the last float
    values in front of them count. CalibrationError without samples, or when a reference output
    isn't finite; RecipeError for a layer that isn't placed.
    """
    placed = place(model, ranges, target, NOTHING)
    exact, placed_layers = lone_layers(placed, target.quantization, model)
    _check_names(effort, placed_layers)
    wanted = [x for x in placed_layers if effort.layers is None or x.name in effort.layers]
    found = {x.name: effort.known[x.name] for x in wanted if x.name in effort.known}
    todo = [x for x in wanted if x.name not in found]
    count = len(samples)
    if todo:
        with LoneRuns(exact, todo, samples) as runs:
            count = runs.count
            for name, power in _measured(runs, todo, effort):
                found[name] = _decibels(power)
                effort.measured(name, found[name])
                effort.advance(1)
    done = [x for x in wanted if x.name in found]
    return Sensitivity(
        _ranked(done, found, count), tuple(x.name for x in wanted if x.name not in found)
    )


def _check_names(effort: Effort, placed: Sequence[LoneLayer]) -> None:
    names = {layer.name for layer in placed}
    for name in effort.layers or ():
        if name not in names:
            raise RecipeError(
                f"no layer {name!r} in the placement{nearest(name, names)}; name one of the "
                f"{len(names)} that INT8 would run"
            )


def _measured(
    runs: LoneRuns, todo: Sequence[LoneLayer], effort: Effort
) -> Iterator[tuple[str, float]]:
    if effort.budget_s is None:
        yield from runs.measure(todo)
        return
    until = effort.clock() + effort.budget_s
    guesses = runs.guesses(todo)
    order = sorted(todo, key=lambda layer: guesses[layer.name], reverse=True)
    for start in range(0, len(order), _PORTION):
        if effort.clock() >= until:
            return
        for result in runs.measure(order[start : start + _PORTION]):
            yield result
            if effort.clock() >= until:
                return


def _ranked(
    layers: Sequence[LoneLayer], noise_db: Mapping[str, float], count: int
) -> tuple[LayerNoise, ...]:
    """The noisiest first; of equals the one that comes first in the graph."""
    order = sorted(layers, key=lambda x: -noise_db[x.name])
    power = np.array([10 ** (noise_db[x.name] / 10) for x in order])
    # summed from the small end, so that nothing is lost beside a large one
    totals = np.cumsum(power[::-1])[::-1]
    return tuple(
        LayerNoise(
            x.name, x.op, ", ".join(x.activations), noise_db[x.name], _decibels(total), count
        )
        for x, total in zip(order, totals, strict=True)
    )


def _decibels(power: float) -> float:
    if not np.isfinite(power):
        return _BROKEN_DB
    db = 10 * np.log10(power) if power > 0 else _SILENT_DB
    return float(np.clip(db, _SILENT_DB, _BROKEN_DB))
