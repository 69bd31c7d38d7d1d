"""The whole line, in order: load, simplify, fuse, calibrate, quantize, build, parity, package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy import registry
from deploy.artifacts.bundle import Bundle
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.artifacts.parity import ParityReport
from deploy.artifacts.ranges import Ranges
from deploy.batches import single_run
from deploy.bench import Latency, latency
from deploy.build import build, load_engine
from deploy.calibrate import calibrate, source_of
from deploy.data import Data, SampleSet, open_data
from deploy.errors import CalibrationError, ParityError, RecipeError
from deploy.fold_input import exact_engine, fold_input
from deploy.fuse import fuse
from deploy.judge import limits_for
from deploy.load import load, read
from deploy.package import Findings, check_output, package
from deploy.parity import Limits, parity
from deploy.progress import Progress
from deploy.quantize import quantize
from deploy.recipe import Recipe
from deploy.simplify import simplify
from deploy.target import Precision, Target, compared_precisions, offered, with_batch
from deploy.work import Work, tool_versions

_MODEL = "model.onnx"
_RANGES = "ranges.json"
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


def deploy_model(job: Job) -> Bundle:
    """The finished bundle; ParityError, its evidence in `<output>.failed`, if a gate missed."""
    target = Target.load(job.recipe.target)
    precision = precision_of(job.recipe, target)
    source = read(job.model)
    check_output(job.output, source)
    with (
        Work(work_folder(job.output), tool_versions(), fresh=job.fresh) as work,
        closing(job.progress),
    ):
        findings = _Line(job, work, target, precision, source).run()
        bundle = package(findings, job.output, work.root)
        work.tidy()
    if not findings.parity.passed:
        raise ParityError(
            f"{findings.parity.verdict()}; the evidence is in {bundle.folder}, see report.html",
            bundle.folder,
        )
    return bundle


def precision_of(recipe: Recipe, target: Target) -> Precision:
    """The recipe's precision or the target's default; RecipeError when the target lacks it."""
    precision = offered(target, recipe.precision or target.default_precision)
    if precision == "int8" and recipe.ranges and recipe.data is None and recipe.eval_data is None:
        raise RecipeError(
            f"--ranges {recipe.ranges} without samples to judge the engine on: noise would prove "
            "nothing of an engine calibrated on data; give --eval-data or --data"
        )
    if precision == "int8" and recipe.data is None and recipe.ranges is None:
        chosen = "--int8" if recipe.precision else f"int8, the default of {target.name!r},"
        raise RecipeError(
            f"{chosen} without --data: ranges come from real samples, never from random numbers. "
            "Give --data, or a float precision such as --fp32"
        )
    return precision


def work_folder(output: Path) -> Path:
    """Where the finished stages of an output folder lie."""
    return output.with_name(f"{output.name}.work")


class _Line:
    """The stages of one job, each through the work folder."""

    def __init__(
        self, job: Job, work: Work, target: Target, precision: Precision, source: Model
    ) -> None:
        self.job = job
        self.work = work
        self.target = with_batch(target, job.recipe.batch)
        self.precision = precision
        self.source = source

    def run(self) -> Findings:
        recipe = self.job.recipe
        loaded = self.model("load", self.source, lambda m: load(m, recipe.shape), recipe.shape)
        graphs = {"source": self.source, "loaded": loaded}
        if recipe.fold_input:
            pre = recipe.preprocess()
            form = [pre.layout, pre.color, pre.scale, pre.mean, pre.std]
            loaded = self.model("rawinput", loaded, lambda m: fold_input(m, pre), form)
            graphs["rawinput"] = loaded
        # before the long stages: what can't be judged, or doesn't fit, is said at once
        self.exact(loaded).close()
        data = open_data(_judging(recipe, self.precision), loaded)
        limits = limits_for(self.target, self.precision, recipe, loaded, data.evaluation)
        registry.path("calibrator", recipe.calibrator)
        simplified = self.model("simplify", loaded, simplify)
        order = self.target.fusions
        fused = self.model("fuse", simplified, lambda m: fuse(m, order), order)
        graphs |= {"simplified": simplified, "fused": fused}
        ranges, final = None, fused
        if self.precision == "int8":
            ranges = self.ranges(fused, data)
            final = self.quantized(fused, ranges)
            graphs["quantized"] = final
        engine = self.engine(final, self.precision)
        evidence, report = self.parity(limits, loaded, engine, data.evaluation)
        return Findings(
            job_command=list(self.job.command),
            recipe=recipe,
            target=self.target,
            precision=self.precision,
            data=data,
            graphs=graphs,
            ranges=ranges,
            engine=engine,
            evidence=evidence,
            parity=report,
            tolerance=limits.tolerance,
            latency=self.latency(fused, engine, data),
            tools=self.work.tools,
        )

    def exact(self, loaded: Model) -> Engine:
        """The untouched model in float32, fed like the engine."""
        return exact_engine(self.source, loaded, self.job.recipe.preprocess())

    def stage(
        self, name: str, key: dict[str, Any], make: Callable[[Path], None], total: int | None = None
    ) -> tuple[Path, bool]:
        self.job.progress.start(name, total)
        return self.work.stage(name, key, make)

    def done(self, name: str, result: str, reused: bool) -> None:
        self.job.progress.done(name, result, reused=reused)

    def model(
        self, name: str, model: Model, make: Callable[[Model], Model], settings: Any = None
    ) -> Model:
        """A stage from graph to graph."""
        key = {"model": model.sha256, "name": model.name, "settings": settings}
        folder, reused = self.stage(
            name, key, lambda out: make(model).save_with_decisions(out / _MODEL)
        )
        made = Model.load(folder / _MODEL).named(model.name)
        self.done(name, made.in_short(), reused)
        return made

    def ranges(self, fused: Model, data: Data) -> Ranges:
        recipe = self.job.recipe
        if recipe.ranges is not None:
            return self.given_ranges(fused, data.calibration, Path(recipe.ranges))
        samples = data.calibration
        if samples is None:
            raise CalibrationError("no calibration samples; give --data")
        key = {"model": fused.sha256, "data": samples.sha256(), "calibrator": recipe.calibrator}

        def make(out: Path) -> None:
            calibrate(
                fused,
                samples,
                recipe.calibrator,
                batch_size=recipe.batch_size,
                advance=self.job.progress.advance,
            ).save(out / _RANGES)

        folder, reused = self.stage("calibrate", key, make, len(samples))
        ranges = Ranges.load(folder / _RANGES)
        samples.check_unchanged(ranges.source.sample_sha256)
        count = len(ranges.tensors)
        result = f"{count} tensors, {recipe.calibrator}, {len(samples)} samples"
        self.done("calibrate", result, reused)
        return ranges

    def given_ranges(self, fused: Model, samples: SampleSet | None, path: Path) -> Ranges:
        """The user's ranges file, refused when it isn't of this model, data and settings."""
        self.job.progress.start("calibrate")
        ranges = Ranges.load(path)
        calibrator = self.job.recipe.calibrator
        if samples is not None:
            wanted = source_of(fused, samples, calibrator)
            reason = ranges.why_not(wanted)
        elif ranges.source.model_sha256 != fused.sha256:
            reason = ranges.why_not(source_of(fused, (), calibrator))
        else:
            reason = None
        if reason is not None:
            raise CalibrationError(f"{path}: {reason}; leave out --ranges to calibrate again")
        self.done("calibrate", f"{len(ranges.tensors)} tensors from {path}", reused=True)
        return ranges

    def quantized(self, fused: Model, ranges: Ranges) -> Model:
        tensors = {n: [t.range.low, t.range.high] for n, t in ranges.tensors.items()}
        form = [self.target.placement, self.target.quantization.model_dump(), tensors]
        form.append(self.target.quantized_fusions)
        return self.model("quantize", fused, lambda m: quantize(m, ranges, self.target), form)

    def engine(self, model: Model, precision: Precision, name: str = "build") -> Path:
        settings = [self.target.backend, self.target.engine.model_dump(mode="json")]
        key = {"model": model.sha256, "precision": precision, "settings": settings}
        folder, reused = self.stage(
            name, key, lambda out: build(model, self.target, precision, out)
        )
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        self.done(name, f"{self.target.backend} engine, {precision}, {size / 1e6:.2f} MB", reused)
        return folder

    def parity(
        self, limits: Limits, loaded: Model, engine: Path, samples: SampleSet
    ) -> tuple[Path, ParityReport]:
        key = {
            "source": self.source.sha256,
            "engine": engine.name,
            "data": samples.sha256(),
            "limits": [limits.tolerance.model_dump(), limits.scores, sorted(limits.given)],
            "about": samples.about,
        }

        def make(out: Path) -> None:
            with (
                self.exact(loaded) as exact,
                load_engine(engine, self.target, self.precision) as candidate,
            ):
                parity(
                    exact,
                    candidate,
                    samples,
                    limits,
                    about=samples.about,
                    evidence=out,
                    advance=self.job.progress.advance,
                ).save(out / _PARITY)

        folder, reused = self.stage("parity", key, make, len(samples))
        report = ParityReport.load(folder / _PARITY)
        self.done("parity", report.verdict(), reused)
        return folder, report

    def latency(self, fused: Model, engine: Path, data: Data) -> dict[str, Latency]:
        """The engine beside float engines of the same graph, interleaved; measured every time."""
        folders: dict[str, tuple[Path, Precision]] = {}
        for precision in compared_precisions(self.target, self.precision):
            folders[precision] = (self.engine(fused, precision, "baseline"), precision)
        folders[self.precision] = (engine, self.precision)
        self.job.progress.start("bench")
        engines = {
            name: load_engine(folder, self.target, precision)
            for name, (folder, precision) in folders.items()
        }
        try:
            feeds = {name: single_run(e.inputs, data.evaluation) for name, e in engines.items()}
            found = latency(engines, feeds)
        finally:
            for candidate in engines.values():
                candidate.close()
        words = ", ".join(f"{name} {row.median_ms:.3f} ms" for name, row in found.items())
        self.done("bench", words, reused=False)
        return found


def _judging(recipe: Recipe, precision: Precision) -> Recipe:
    """The recipe whose data all judges when nothing is calibrated."""
    if precision == "int8":
        return recipe
    return recipe.model_copy(update={"data": None, "eval_data": recipe.eval_data or recipe.data})
