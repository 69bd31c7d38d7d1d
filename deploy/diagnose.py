"""The usual suspects, looked for in a model or a bundle on real samples, and said in words."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from deploy.artifacts.audit import Finding
from deploy.artifacts.bundle import Bundle
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.audit.samples import audit
from deploy.batches import feeds_of
from deploy.compare import open_candidate, precision_at
from deploy.data import SampleSet, open_data
from deploy.errors import BuildError, BundleError, RecipeError
from deploy.ladder.tensors import AS_IS, Feeding, observable, observed, typed
from deploy.load import load, read
from deploy.recipe import Recipe
from deploy.suspects import engine as of_engine
from deploy.suspects import inputs, values
from deploy.suspects.evidence import Evidence
from deploy.task import class_scores

SUSPECTS = (
    *(inputs.layout, inputs.shapes, values.not_finite, values.dead, values.saturated),
    *(values.constant_outputs, inputs.labels, of_engine.vnni, of_engine.float_type),
    of_engine.ranges,
)
# of an audit of calibration samples, what makes results wrong on any samples
_OF_SAMPLES = (
    *("likely wrong preprocessing", "absurdly large inputs", "constant inputs"),
    "saturated inputs",
)
# inner tensors are looked at on so many samples, outputs on all
_INNER = 4
_JUDGED = 64
_JUDGED_ON = ("data", "eval_data", "eval_samples")


@dataclass(frozen=True)
class Diagnosis:
    """findings: what likely is wrong first. looked_for: the suspects that were examined.

    data: where the samples are from, in words.
    """

    subject: str
    samples: int
    data: str
    findings: tuple[Finding, ...]
    looked_for: tuple[str, ...]
    not_told: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        return not any(found.severity == "warn" for found in self.findings)


def diagnose(
    subject: Path, recipe: Recipe, advance: Callable[[int], None] = lambda count: None
) -> Diagnosis:
    """Look for every suspect in a bundle or an ONNX model; RecipeError without samples."""
    if recipe.data is None and recipe.eval_data is None:
        raise RecipeError(
            "no --data: what goes wrong shows on real samples; give some like those it fails on"
        )
    with ExitStack() as stack:
        if subject.is_dir():
            return _of_bundle(subject, recipe, stack, advance)
        model = load(read(subject), recipe.shape)
        samples = _samples(recipe, model)
        return _looked_at(_evidence(model, recipe, samples), samples, str(subject), advance)


def _of_bundle(
    folder: Path, recipe: Recipe, stack: ExitStack, advance: Callable[[int], None]
) -> Diagnosis:
    bundle = Bundle.load(folder)
    path = folder / "model" / "fused.onnx"
    if not path.is_file():
        raise BundleError(f"{folder}: holds no graphs to look into; give the model instead")
    fused = Model.load(path).named(bundle.name)
    # what the bundle was built on isn't what it fails on, and may lie elsewhere by now
    built = bundle.manifest.get("recipe", {})
    recorded = {key: value for key, value in built.items() if key not in _JUDGED_ON}
    own = Recipe.model_validate({**recorded, **recipe.model_dump(exclude_unset=True)})
    samples = _samples(own, fused)
    quantized = folder / "model" / "quantized.onnx"
    ranges, model = _ranges(folder, fused)
    engine = stack.enter_context(open_candidate(folder, recipe))
    evidence = _evidence(
        model,
        own,
        samples,
        ranges=ranges,
        quantized=Model.load(quantized) if quantized.is_file() else None,
        engine=engine,
        precision=precision_at(folder, recipe),
        flags=of_engine.cpu_flags(),
    )
    return _looked_at(evidence, samples, str(folder), advance)


def _ranges(folder: Path, fused: Model) -> tuple[Ranges | None, Model]:
    """The bundle's ranges with the graph they are of; without them where that wasn't kept."""
    path, equalized = folder / "ranges.json", folder / "model" / "equalized.onnx"
    if not path.is_file():
        return None, fused
    found = Ranges.load(path)
    kept = [Model.load(equalized).named(fused.name)] if equalized.is_file() else []
    for model in (*kept, fused):
        if model.sha256 == found.source.model_sha256:
            return found, model
    return None, fused


def _samples(recipe: Recipe, model: Model) -> SampleSet:
    chosen = recipe.model_copy(
        update={
            "eval_data": recipe.eval_data or recipe.data,
            "data": None,
            "eval_samples": min(recipe.eval_samples, _JUDGED),
        }
    )
    return open_data(chosen, model).evaluation


def _evidence(model: Model, recipe: Recipe, samples: SampleSet, **known: object) -> Evidence:
    seen = observable(model)
    chosen = list(samples)
    feeding = Feeding(recipe.preprocess()) if recipe.fold_input else AS_IS
    size = next((s.shape[0] for s in seen.inputs if s.shape and s.shape[0]), 1) or 1
    inner = observed(
        seen, list(typed(seen)), [feeds_of([s], size) for s in chosen[:_INNER]], feeding
    )
    outputs = observed(seen, [], [feeds_of([s], size) for s in chosen], feeding)
    labelled = bool(chosen) and chosen[0].label is not None
    try:
        scores = class_scores(model, recipe.task, labelled, recipe.scores)
    except RecipeError:
        scores = None
    return Evidence(model, recipe, chosen, inner, outputs, scores, **known)  # type: ignore[arg-type]


def _looked_at(
    evidence: Evidence, samples: SampleSet, subject: str, advance: Callable[[int], None]
) -> Diagnosis:
    found = [each for suspect in SUSPECTS if (each := suspect(evidence)) is not None]
    unknown: tuple[str, ...] = ()
    if not any(each.kind in ("not finite", "shape mismatch") for each in found):
        try:
            audited = audit(evidence.model, samples, evidence.recipe, advance=advance)
            found += [each for each in audited.findings if each.kind in _OF_SAMPLES]
            unknown = audited.not_told
        except BuildError as error:
            unknown = (f"Preprocessing was not examined: {error}",)
    ordered = sorted(found, key=lambda each: each.severity == "note")
    names = (*(suspect.__name__.replace("_", " ") for suspect in SUSPECTS), "preprocessing")
    data = f"{samples.uri}: {samples.about}"
    return Diagnosis(subject, len(evidence.samples), data, tuple(ordered), names, unknown)
