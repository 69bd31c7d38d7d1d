"""Stages run through the work folder: made once, and found again by an interrupted build."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.artifacts.parity import ParityReport
from deploy.batches import single_run
from deploy.bench import Latency, latency
from deploy.build import build, load_engine
from deploy.cluster.parity import Pair, parity_on
from deploy.cluster.workers import Workers
from deploy.data import SampleSet
from deploy.fold_input import exact_engine
from deploy.parity import Limits, parity
from deploy.progress import Progress
from deploy.recipe import Recipe
from deploy.target import Precision, Target, Tolerance
from deploy.work import Work

MODEL = "model.onnx"
_PARITY = "parity.json"


@dataclass(frozen=True)
class Job:
    """One build: which model, for what, to where, and the command that asked for it."""

    model: Path
    recipe: Recipe
    output: Path
    command: Sequence[str] = ()
    fresh: bool = False
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class Built:
    """An engine in the work folder: what it was compiled from, for which settings."""

    graph: Model
    target: Target
    precision: Precision
    folder: Path


@dataclass(frozen=True)
class Judged:
    """An engine and what parity says of it; scores: the output with class scores, if any."""

    built: Built
    evidence: Path
    report: ParityReport
    tolerance: Tolerance
    scores: str | None = None


class Line:
    """The work folder of one job, and the stages that every kind of engine goes through."""

    def __init__(self, job: Job, work: Work, source: Model) -> None:
        self.job = job
        self.work = work
        self.source = source

    def exact(self, loaded: Model) -> Engine:
        """The untouched model in float32, fed like the engine."""
        return exact_engine(self.source, loaded, self.job.recipe.preprocess())

    def stage(
        self, name: str, key: dict[str, Any], make: Callable[[Path], None], total: int | None = None
    ) -> tuple[Path, bool]:
        """The folder of a finished stage, and whether it was there already."""
        self.job.progress.start(name, total)
        return self.work.stage(name, key, make)

    def done(self, name: str, result: str, reused: bool) -> None:
        """Say how a stage ended."""
        self.job.progress.done(name, result, reused=reused)

    def model(
        self,
        name: str,
        model: Model,
        make: Callable[[Model], Model],
        settings: Any = None,
        say: Callable[[Model], str] = Model.in_short,
    ) -> Model:
        """A stage from graph to graph."""
        key = {"model": model.sha256, "name": model.name, "settings": settings}
        folder, reused = self.stage(
            name, key, lambda out: make(model).save_with_decisions(out / MODEL)
        )
        made = Model.load(folder / MODEL).named(model.name)
        self.done(name, say(made), reused)
        return made

    def engine(
        self, model: Model, target: Target, precision: Precision, name: str = "build"
    ) -> Built:
        """The vendor's engine of a graph."""
        compiled_by = [target.backend, target.quantization.highest_opset]
        settings = [*compiled_by, target.engine.model_dump(mode="json"), target.engine_fusions]
        key = {"model": model.sha256, "precision": precision, "settings": settings}
        folder, reused = self.stage(name, key, lambda out: build(model, target, precision, out))
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        # the device's engine, run by ONNX Runtime where the device isn't
        stand_in = target.engine.nvidia is not None and target.backend == "reference"
        what = "simulation" if stand_in else f"{target.backend} engine"
        self.done(name, f"{what}, {precision}, {size / 1e6:.2f} MB", reused)
        return Built(model, target, precision, folder)

    def judged(self, built: Built, loaded: Model, samples: SampleSet, limits: Limits) -> Judged:
        """The engine against the untouched model, on real samples."""
        key = {
            "source": self.source.sha256,
            "engine": built.folder.name,
            "data": samples.sha256(),
            "limits": [limits.tolerance.model_dump(), sorted(limits.given)],
            "outputs": {name: gate.model_dump() for name, gate in limits.outputs.items()},
            "task": repr(limits.task),
            "about": samples.about,
        }

        recipe = self.job.recipe

        def make(out: Path) -> None:
            advance = self.job.progress.advance
            if recipe.workers is not None:
                truth = (self.source, loaded, recipe.preprocess())
                pair = Pair.of(truth, built.folder, built.target, built.precision)
                with Workers.parse(recipe.workers) as workers:
                    found = parity_on(workers, pair, samples, limits, evidence=out, advance=advance)
                found.save(out / _PARITY)
                return
            with self.exact(loaded) as exact, self.open(built) as candidate:
                parity(
                    exact,
                    candidate,
                    samples,
                    limits,
                    about=samples.about,
                    evidence=out,
                    advance=advance,
                ).save(out / _PARITY)

        folder, reused = self.stage("parity", key, make, len(samples))
        report = ParityReport.load(folder / _PARITY)
        self.done("parity", report.verdict(), reused)
        return Judged(built, folder, report, limits.tolerance, limits.scores)

    def open(self, built: Built) -> Engine:
        """The engine as it lies on disk, ready to run."""
        return load_engine(built.folder, built.target, built.precision)

    def latency(self, named: Mapping[str, Built], samples: SampleSet) -> dict[str, Latency]:
        """The engine beside float engines of the same graph, interleaved; measured every time."""
        self.job.progress.start("bench")
        engines = {name: self.open(built) for name, built in named.items()}
        try:
            feeds = {name: single_run(e.inputs, samples) for name, e in engines.items()}
            found = latency(engines, feeds)
        finally:
            for candidate in engines.values():
                candidate.close()
        words = ", ".join(f"{name} {row.median_ms:.3f} ms" for name, row in found.items())
        self.done("bench", words, reused=False)
        return found
