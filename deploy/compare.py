"""Models, engines and bundles on disk, side by side: what `deploy parity` and `bench` call."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from calibrators.samples import Sample
from deploy.artifacts.bundle import Bundle
from deploy.artifacts.engine import Engine
from deploy.artifacts.parity import ParityReport
from deploy.artifacts.stored_arrays import stored_arrays
from deploy.backends import reference
from deploy.batches import fixed_batch, whole_inputs
from deploy.bench import latency, throughput
from deploy.build import SETTINGS, load_engine
from deploy.data import open_data
from deploy.errors import BundleError, RecipeError
from deploy.fold_input import exact_engine, fold_input
from deploy.judge import limits_for
from deploy.load import load, read
from deploy.noise import seeded_feeds
from deploy.parity import Limits, parity
from deploy.recipe import OutputGate, Recipe
from deploy.target import EngineSettings, Precision, Target, Tolerance, with_batch
from deploy.validation import explain

# of a bundle whose engine runs on another device: what ran in its place
SIMULATION = "simulation"


def compare(
    model: Path, candidate: Path, recipe: Recipe, advance: Callable[[int], None]
) -> ParityReport:
    """A candidate against an ONNX model, on the recipe's samples (seeded noise without any)."""
    source = read(model)
    loaded = load(source, recipe.shape)
    if recipe.fold_input:
        loaded = fold_input(loaded, recipe.preprocess())
    # every given sample may judge here: nothing is being calibrated
    judged = recipe.model_copy(update={"eval_data": recipe.eval_data or recipe.data, "data": None})
    samples = open_data(judged, loaded).evaluation
    with (
        exact_engine(source, loaded, recipe.preprocess()) as exact,
        open_candidate(candidate, recipe) as engine,
    ):
        precision = precision_at(candidate, recipe)
        limits = limits_for(Target.load(recipe.target), precision, recipe, loaded, samples)
        return parity(exact, engine, samples, limits, about=samples.about, advance=advance)


def recheck(folder: Path, recipe: Recipe) -> ParityReport:
    """A bundle's engine against the float32 outputs stored with it, at the bundle's own gates."""
    bundle = Bundle.load(folder)
    for flag, given in (("data", recipe.data), ("eval-data", recipe.eval_data)):
        if given is not None:
            raise RecipeError(
                f"--{flag} needs the model to compare with: deploy parity MODEL {folder} "
                f"--{flag} {given}"
            )
    if recipe.max_drop is not None:
        raise RecipeError(
            "--max-drop needs labelled samples and the model: deploy parity MODEL "
            f"{folder} --data URI --max-drop {recipe.max_drop:g}"
        )
    try:
        stored = Tolerance.model_validate(bundle.manifest["tolerance"])
    except (KeyError, ValidationError):
        raise BundleError(f"{folder}: no gates in its manifest; build the bundle again") from None
    # a handful of stored samples says nothing of accuracy: only the numbers are judged
    changes: dict[str, float | None] = {"max_drop_pct": None, "min_agreement_pct": None}
    if recipe.min_sqnr_db is not None:
        changes["min_sqnr_db"] = recipe.min_sqnr_db
    gates = bundle.manifest["recipe"].get("outputs", {})
    own = recipe.outputs or {n: OutputGate.model_validate(row) for n, row in gates.items()}
    limits = Limits(stored.model_copy(update=changes), None, "the bundle", outputs=own)
    feeds, expected = (
        stored_arrays(folder / "parity" / f) for f in ("samples.npz", "reference.npz")
    )
    with open_candidate(folder, recipe) as engine:
        exact = _Stored(engine, expected)
        whole = whole_inputs(engine.inputs)
        samples = [
            Sample(
                f"parity sample {i}",
                {name: x[i] if name in whole else x[i : i + 1] for name, x in feeds.items()},
            )
            for i in range(len(next(iter(feeds.values()))))
        ]
        return parity(exact, engine, samples, limits, about="the samples stored in the bundle")


def bench(
    candidates: Sequence[Path], recipe: Recipe, *, rounds: int, threads: int
) -> dict[str, dict[str, Any]]:
    """Latency and throughput of every candidate, interleaved, keyed by its path."""
    names = [str(path) for path in candidates]
    if len(set(names)) < len(names):
        raise RecipeError("a candidate is given twice; give each once")
    single = {n: _timed(Path(n), recipe, "LATENCY", threads) for n in names}
    many = {n: _timed(Path(n), recipe, "THROUGHPUT", threads) for n in names}
    try:
        feeds = {name: seeded_feeds(engine.inputs) for name, engine in single.items()}
        times = latency(single, feeds, rounds=rounds, budget_s=60.0)
        rates = throughput(many, feeds)
    finally:
        for engine in (*single.values(), *many.values()):
            engine.close()
    return {
        name: {**asdict(times[name]), "samples_per_s": rates[name].median_per_s} for name in names
    }


def open_candidate(path: Path, recipe: Recipe) -> Engine:
    """An engine from a bundle, an engine folder, or an ONNX file run by the reference backend."""
    folder = engine_folder(path)
    if folder is None:
        return reference.build(load(read(path), recipe.shape))
    chosen = _settings(folder)
    target = _target_of(chosen, recipe)
    return load_engine(folder, target, chosen["precision"])


def engine_folder(path: Path) -> Path | None:
    """Where the engine files lie; None for an ONNX file; BundleError for anything else."""
    if path.is_file() or path.suffix == ".onnx":
        return None
    # without the device, a bundle holds what ran in its engine's place
    for folder in (path, path / SIMULATION, path / "engine"):
        if (folder / SETTINGS).is_file():
            return folder
    what = "no such file or folder" if not path.exists() else "neither a bundle nor an engine"
    raise BundleError(f"{path}: {what}; give a bundle, an engine folder or an .onnx file")


def simulated_target(folder: Path) -> str:
    """What a bundle's simulation stands for; "" where the folder is another."""
    if folder.name != SIMULATION:
        return ""
    return str(Bundle.load(folder.parent).manifest["results"]["target_title"])


def precision_at(path: Path, recipe: Recipe) -> Precision:
    """What the candidate was built for; an ONNX file counts as the recipe says, or fp32."""
    folder = engine_folder(path)
    if folder is not None:
        found: Precision = _settings(folder)["precision"]
        return found
    return recipe.precision or "fp32"


def _timed(path: Path, recipe: Recipe, hint: str, threads: int) -> Engine:
    """A candidate compiled for latency or for throughput; an ONNX file for the recipe's target."""
    from deploy import registry

    folder = engine_folder(path)
    if folder is not None and folder.name == SIMULATION:
        raise BundleError(
            f"{path}: its engine is for {simulated_target(folder)}, and what is here is the "
            "simulation of it, whose speed says nothing; finish.py times the engine on the device"
        )
    if folder is None:
        target = with_batch(Target.load(recipe.target), recipe.batch)
        precision: Precision = recipe.precision or "fp32"
    else:
        chosen = _settings(folder)
        target, precision = _target_of(chosen, recipe), chosen["precision"]
    update = {"performance_hint": hint, "threads": threads or target.engine.threads}
    settings = target.engine.model_copy(update=update)
    backend = registry.module("backend", target.backend)
    engine: Engine = (
        backend.build(load(read(path), recipe.shape), settings, precision)
        if folder is None
        else backend.load(folder, settings, precision)
    )
    return engine


def _check_no_path(engine: EngineSettings, file: Path) -> None:
    """An engine may come from anywhere: it doesn't choose where this machine writes."""
    if engine.cache_dir:
        raise BundleError(
            f"{file}: engine.cache_dir = {engine.cache_dir[:60]!r}, a folder this machine would "
            "write to; only a target says that, build the engine again"
        )


def _settings(folder: Path) -> dict[str, Any]:
    try:
        chosen = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        engine = EngineSettings.model_validate(chosen["engine"])
        _check_no_path(engine, folder / SETTINGS)
        return {key: chosen[key] for key in ("backend", "precision", "engine")}
    except ValidationError as error:
        raise BundleError(
            f"{folder / SETTINGS}: engine: {explain(error, EngineSettings)}; no build writes that, "
            "build it again"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / SETTINGS}: damaged ({error!r}); build it again") from None


def _target_of(chosen: dict[str, Any], recipe: Recipe) -> Target:
    """The recipe's target with the backend and settings the engine was built with."""
    settings = EngineSettings.model_validate(chosen["engine"])
    return Target.load(recipe.target).model_copy(
        update={"backend": chosen["backend"], "engine": settings}
    )


class _Stored(Engine):
    """Answers with stored outputs, one sample after the other."""

    def __init__(self, engine: Engine, expected: dict[str, np.ndarray]) -> None:
        super().__init__(engine.inputs, engine.outputs)
        self.expected = expected
        self.next = 0

    def save(self, folder: Path) -> None:
        raise BundleError("stored outputs can't be saved as an engine")

    def _run(self, feeds: Any) -> dict[str, np.ndarray]:
        size = fixed_batch(self.inputs)
        taken = slice(self.next, self.next + size)
        self.next += size
        ranks = {spec.name: len(spec.shape) for spec in self.outputs}
        # an output without a batch axis was stacked along a new first one
        return {
            name: x[taken] if x.ndim == ranks[name] else x[taken][0]
            for name, x in self.expected.items()
        }

    def _prepare(self, feeds: Any) -> Callable[[], None]:
        raise BundleError("stored outputs can't be timed")
