"""From two graphs, or a graph and its engine, to the first node that fails, kept as a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibrators.samples import Sample
from deploy.artifacts.ladder import Culprit
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.compare import engine_folder, open_candidate, precision_at
from deploy.data import open_data
from deploy.errors import ModelError
from deploy.ladder.case import Case, part_of, write_case
from deploy.ladder.climb import Shipped, Way, ladder
from deploy.ladder.engine_fault import engine_look, float_type
from deploy.ladder.first_fault import Pair, first_fault
from deploy.ladder.noisy_fault import NoisyPair
from deploy.ladder.of_bundle import bundle_way, without_qdq
from deploy.ladder.tensors import (
    AS_IS,
    Feeding,
    Values,
    makers,
    observable,
    observed,
    runs_of,
)
from deploy.load import load, read
from deploy.recipe import Recipe
from deploy.rounding_bound import rounding_bound

# float graphs that ought to be equal; float round-off keeps 110 dB and more
TOLERANCE_DB = 60.0
# what weights alone, stored in 8 bits, leave of the outputs; the shared models keep 20 and more
_STORED_DB = 12.0
_FEW_WRONG = 3
_SAMPLES = 4


@dataclass(frozen=True)
class Found:
    """The first fault, if any, and the folder of its case. told: what was compared, in words.

    stage_broken: the stage lost more than it may, even if no node stands out.
    """

    culprit: Culprit | None
    stage: str
    told: str
    case: Path | None = None
    stage_broken: bool = False


def debug(
    model: Path, candidate: Path, recipe: Recipe, output: Path, least_db: float | None = None
) -> Found:
    """The first node of `candidate` that doesn't do what `model` does, written to `output`.

    candidate: an .onnx (float or Q/DQ), a bundle, or an engine's folder that was compiled from
    `model`. least_db: what float graphs have to reach, 60 by default.
    """
    if (candidate / "manifest.json").is_file():
        return _bundle(model, candidate, recipe, output)
    exact = observable(load(read(model), recipe.shape))
    judged = recipe.model_copy(
        update={
            "eval_data": recipe.eval_data or recipe.data,
            "data": None,
            "eval_samples": _SAMPLES,
        }
    )
    samples = list(open_data(judged, exact).evaluation)
    if engine_folder(candidate) is not None:
        with open_candidate(candidate, recipe) as engine:
            folder = engine_folder(candidate)
            shipped = Shipped(engine, precision_at(candidate, recipe), folder)
            return _engine(exact, shipped, samples, AS_IS, output)
    other = observable(load(read(candidate), recipe.shape))
    if not {spec.name for spec in exact.outputs} & {spec.name for spec in other.outputs}:
        names = ", ".join(spec.name for spec in exact.outputs)
        raise ModelError(f"{candidate}: has none of the outputs of {model} ({names})")
    pair = Pair.of(exact, other, runs_of(exact, samples))
    told = f"{candidate.name} against {model.name} on {len(samples)} samples"
    if _rounds(other) and not _rounds(exact):
        return _rounded(pair, told, output)
    culprit = first_fault(pair, TOLERANCE_DB if least_db is None else least_db)
    return _kept(pair, culprit, "rewrite", told, output, right=False)


def _rounded(pair: Pair, told: str, output: Path) -> Found:
    """A Q/DQ graph against a float one that it may have been equalized behind."""
    culprits = NoisyPair(pair).culprits()
    if len(culprits) <= _FEW_WRONG:
        return _kept(pair, next(iter(culprits), None), "quantize", told, output, right=True)
    # nearly every layer differs: their channels were scaled in between
    bare = observable(without_qdq(pair.candidate))
    runs = list(zip(pair.runs, pair.counts, strict=True))
    stored = Pair.of(pair.exact, bare, runs, pair.feeding)
    culprit = first_fault(stored, _STORED_DB)
    if culprit is not None:
        return _kept(stored, culprit, "quantize", told, output, right=False)
    last = Pair.of(bare, pair.candidate, runs, pair.feeding)
    culprit = next(iter(NoisyPair(last).culprits()), None)
    return _kept(last, culprit, "quantize", told, output, right=True)


def _bundle(model: Path, folder: Path, recipe: Recipe, output: Path) -> Found:
    """The first rung of a bundle's ladder that is broken."""
    with bundle_way(folder, recipe, model=model) as (way, samples, about):
        found = ladder(way, samples, about)
        told = f"{folder} against {model.name} on {len(samples)} samples: {found.verdict()}"
        broken = next((rung for rung in found.broken if rung.culprits), None)
        if broken is None:
            stage = found.broken[0].stage if found.broken else ""
            return Found(None, stage, told, stage_broken=bool(found.broken))
        culprit = broken.culprits[0]
        simulated = observable(list(way.graphs.values())[-1])
        if broken.name == "engine" and way.shipped is not None:
            at = _engine(simulated, way.shipped, samples, way.feeding, output)
            return Found(at.culprit, at.stage, told, at.case)
        pair, right = _pair(way, broken.name, broken.against, samples)
        return _kept(pair, culprit, broken.stage, told, output, right=right)


def _pair(way: Way, name: str, against: str, samples: Sequence[Sample]) -> tuple[Pair, bool]:
    noisy = name in ("uncorrected", "quantized", "compressed")
    before, after = observable(way.graphs[against]), observable(way.graphs[name])
    return Pair.of(before, after, runs_of(before, samples[:2]), way.feeding), noisy


def _engine(
    simulated: Model, shipped: Shipped, samples: Sequence[Sample], feeding: Feeding, output: Path
) -> Found:
    bound = rounding_bound(simulated, samples) if _rounds(simulated) else {}
    look = engine_look(shipped, simulated, samples, feeding, bound)
    kind = float_type(shipped)
    told = f"the {kind} engine against the simulation, {len(look.tensors)} inner tensors looked at"
    culprit = next(iter(look.culprits), None)
    if culprit is None or shipped.folder is None:
        return Found(culprit, "build", told)
    run = runs_of(simulated, samples[:1])[0][0]
    part, takes = part_of(simulated, culprit.nodes, culprit.tensor)
    held = observed(simulated, list(makers(simulated)), [run], feeding)[0]
    fed = feeding.of(simulated, run)
    given = {name: {**held, **fed}[name] for name in takes}
    with reference.ReferenceEngine(part, threads=1, exact=True) as engine:
        expected = engine.run(given)
    # the engine's graph also wants its own inputs and the values in front of the tensor
    given = {**fed, **{r.tensor: held[r.tensor] for r in look.tensors if r.tensor in held}, **given}
    write_case(output, Case(culprit, "build", kind), part, given, expected, shipped.folder)
    return Found(culprit, "build", told, output)


def _kept(
    pair: Pair, culprit: Culprit | None, stage: str, told: str, output: Path, *, right: bool
) -> Found:
    """The case on disk. right: given the right graph's values, else the failing graph's own."""
    if culprit is None:
        return Found(None, stage, told)
    tensor = culprit.tensor
    if tensor not in pair.before[0]:
        return Found(culprit, stage, told)
    part, takes = part_of(pair.candidate, culprit.nodes, tensor)
    run = pair.feeding.of(pair.candidate, pair.runs[0])
    own: Values = observed(pair.candidate, takes, [pair.runs[0]], pair.feeding)[0]
    held = {**own, **(pair.before[0] if right else {}), **run}
    inputs = {name: held[name] for name in takes}
    write_case(output, Case(culprit, stage), part, inputs, {tensor: pair.before[0][tensor]}, None)
    return Found(culprit, stage, told, output)


def _rounds(model: Model) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in model.proto.graph.node)
