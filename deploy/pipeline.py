"""The whole line, in order: load, simplify, fuse, equalize, calibrate, quantize, correct, build,
parity, package. INT8's part of it, with its choices, is in `deploy.int8.fastest`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from deploy import registry
from deploy.artifacts.audit import Audit
from deploy.artifacts.bundle import Bundle
from deploy.artifacts.ladder import Ladder
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.audit.samples import audit
from deploy.data import Data, open_data
from deploy.doctor.fused_case import foreseen, fused_case
from deploy.errors import DeployError, ParityError, RecipeError
from deploy.fold_input import fold_input
from deploy.fuse import fuse
from deploy.int8.fastest import Int8
from deploy.int8.float_engine import ship_float
from deploy.int8.stages import Int8Stages, measures
from deploy.int8.variants import candidates
from deploy.int8.weight_only import weight_only
from deploy.judge import limits_for
from deploy.judging_samples import said_of_judging
from deploy.ladder.of_build import build_ladder
from deploy.line import Built, Job, Judged, Line
from deploy.load import load, read
from deploy.loading.default_inputs import default_inputs, kept_default
from deploy.no_effect import no_effect, nothing_narrow, unnamed_fusions, unread
from deploy.nvidia.device import around_samples, check_sizes, device_build, judged_as
from deploy.package import Findings, check_output, package
from deploy.placed import check_names
from deploy.placement import NOTHING
from deploy.precisions import compared_precisions, quantized_as
from deploy.progress import Noted
from deploy.recipe import Recipe
from deploy.simplify import simplify
from deploy.surgery.graph import to_graph
from deploy.target import QUANTIZED, Precision, Target, offered, with_batch
from deploy.widen import computed_kinds, in_words, widen
from deploy.work import Work, tool_versions

_AUDIT = "audit.json"
# samples that judge, which the audit holds beside those that calibrate
_COMPARED = 128

__all__ = ["Job", "deploy_model", "precision_of", "work_folder"]


def deploy_model(job: Job) -> Bundle:
    """The finished bundle; ParityError, its evidence in `<output>.failed`, if a gate missed."""
    target = Target.load(job.recipe.target)
    precision = precision_of(job.recipe, target)
    source = read(job.model)
    check_output(job.output, source)
    noted = Noted(job.progress)
    job = replace(job, progress=noted)
    with (
        Work(work_folder(job.output), tool_versions(), fresh=job.fresh) as work,
        closing(job.progress),
    ):
        findings = _Build(Line(job, work, source), target, precision).run()
        findings = replace(findings, cautions=tuple(noted.cautions))
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
    wanted = recipe.precision or target.default_precision
    if weights_only(recipe):
        if recipe.int8_weights and recipe.int4_weights:
            raise RecipeError("--int8-weights and --int4-weights exclude each other; give one")
        if recipe.precision in QUANTIZED:
            raise RecipeError(
                f"--{recipe.precision} quantizes activations too, --int8-weights and "
                "--int4-weights leave them float; give one of the two"
            )
        wanted = recipe.precision or ("bf16" if "bf16" in target.precisions else "fp32")
    precision = offered(target, wanted)
    if weights_only(recipe) and target.engine.nvidia is not None:
        raise RecipeError(
            f"--int8-weights, --int4-weights and --dynamic with target {target.name!r}: TensorRT "
            "engines are built with INT8 activations or in float; give --int8 or --fp16"
        )
    quantized = precision in QUANTIZED
    if quantized and recipe.ranges and recipe.data is None and recipe.eval_data is None:
        raise RecipeError(
            f"--ranges {recipe.ranges} without samples to judge the engine on: noise would prove "
            "nothing of an engine calibrated on data; give --eval-data or --data"
        )
    if quantized and recipe.data is None and recipe.ranges is None:
        chosen = (
            f"--{precision}"
            if recipe.precision
            else f"{precision}, the default of {target.name!r},"
        )
        raise RecipeError(
            f"{chosen} without --data: ranges come from real samples, never from random numbers. "
            "Give --data, or a float precision such as --fp32"
        )
    return precision


def weights_only(recipe: Recipe) -> bool:
    """Whether weights alone become integers."""
    return recipe.int8_weights or recipe.int4_weights or recipe.dynamic


def work_folder(output: Path) -> Path:
    """Where the finished stages of an output folder lie."""
    return output.with_name(f"{output.name}.work")


@dataclass
class _Build:
    """The stages of one job, in order."""

    line: Line
    target: Target
    precision: Precision

    @property
    def makes_integers(self) -> bool:
        """Whether anything becomes 8 bits or fewer, which is made from float32 alone."""
        return self.precision in QUANTIZED or weights_only(self.line.job.recipe)

    def run(self) -> Findings:
        line, recipe = self.line, self.line.job.recipe
        wanted = with_approximations(with_batch(self.target, recipe.batch), recipe)
        wanted = quantized_as(wanted, self.precision)
        target, absent = judged_as(wanted, self.precision)
        loaded = line.model("load", line.source, lambda m: load(m, recipe.shape), recipe.shape)
        if defaults := default_inputs(line.source.proto):
            line.job.progress.caution(kept_default(defaults))
        graphs = {"source": line.source, "loaded": loaded}
        if recipe.fold_input:
            loaded = graphs["rawinput"] = self.raw_input(loaded)
        check_sizes(wanted, loaded, line.job.progress)
        # before the long stages: what can't be judged, or doesn't fit, is said at once
        line.exact(loaded).close()
        data = open_data(_judging(recipe, self.precision), loaded)
        target = around_samples(target, loaded, data.evaluation)
        limits_for(target, self.precision, recipe, loaded, data.evaluation)
        data = said_of_judging(data, recipe, line.job.progress)
        registry.path("calibrator", recipe.calibrator)
        order = target.fusions
        if self.makes_integers and computed_kinds(loaded):
            graphs["widened"] = line.model("widen", loaded, widen, say=in_words)
        simplified = line.model("simplify", graphs.get("widened", loaded), simplify)
        fused = line.model("fuse", simplified, lambda m: fuse(m, order), order)
        graphs |= {"simplified": simplified, "fused": fused}
        for unheard in (
            *unnamed_fusions(recipe, target),
            *unread(recipe, self.precision),
            *no_effect(recipe, fused),
            *(self.foreseen(wanted, loaded, fused) if absent else ()),
        ):
            line.job.progress.caution(unheard)
        ranges = choice = audited = shipped = device = None
        if self.precision in QUANTIZED:
            graph = to_graph(fused)
            for candidate in candidates(target, recipe, NOTHING, self.precision):
                check_names(candidate.exclude, graph)
            audited = self.audited(graphs["loaded"], data)
            shipped = Int8(Int8Stages(line, target, graphs, data, self.precision)).ship()
            judged, ranges, choice = shipped.judged, shipped.ranges, shipped.choice
            graphs |= shipped.graphs
        elif weights_only(recipe):
            judged, graphs["compressed"] = weight_only(line, target, graphs, data, self.precision)
            for unheard in nothing_narrow(recipe, graphs["compressed"]):
                line.job.progress.caution(unheard)
        elif target.host and target.plugin_fusions and measures(recipe):
            stages = Int8Stages(line, target, graphs, data, self.precision)
            judged, choice = ship_float(stages)
        else:
            judged = self.judged(target, graphs, data)
        built = judged.built
        label: str = built.precision
        if weights_only(recipe):
            label = f"{built.precision}, {'int4' if recipe.int4_weights else 'int8'} weights"
            label += ", dynamic" if recipe.dynamic else ""
        if wanted.engine.nvidia is not None:
            device = device_build(line, wanted, absent, judged, graphs, shipped)
        climbed = self.ladder(graphs, judged, ranges, data)
        engines: dict[str, Built] = {}
        if not absent:
            compared = compared_precisions(target, label)
            engines = {p: line.engine(fused, target, p, "baseline") for p in compared}
            engines[label] = built
        return Findings(
            job_command=list(line.job.command),
            recipe=recipe,
            target=built.target if not absent else wanted,
            judged_as=built.target,
            device=device,
            precision=built.precision,
            label=label,
            data=data,
            graphs=graphs,
            ranges=ranges,
            choice=choice,
            audit=audited,
            engine=built.folder,
            evidence=judged.evidence,
            parity=judged.report,
            ladder=climbed,
            tolerance=judged.tolerance,
            latency=line.latency(engines, data.evaluation) if engines else {},
            tools=line.work.tools,
        )

    def foreseen(self, target: Target, loaded: Model, fused: Model) -> list[str]:
        """What only a device that isn't here would refuse, where no compiler here says it."""
        nvidia = target.engine.nvidia
        if nvidia is None or nvidia.library != "tensorrt":
            return []
        return foreseen(fused_case(self.line.source, target, self.precision, loaded, fused))

    def ladder(
        self, graphs: dict[str, Model], judged: Judged, ranges: Ranges | None, data: Data
    ) -> Ladder | None:
        """What each stage lost, said when one lost more than it may; it judges nothing else."""
        progress = self.line.job.progress
        try:
            found = build_ladder(self.line, graphs, judged, ranges, data.evaluation)
        except DeployError as error:
            progress.caution(f"no parity ladder: {error}")
            return None
        if found.broken:
            progress.caution(found.verdict())
        return found

    def raw_input(self, loaded: Model) -> Model:
        """The model taking raw images."""
        pre = self.line.job.recipe.preprocess()
        form = [pre.layout, pre.color, pre.scale, pre.mean, pre.std]
        return self.line.model("rawinput", loaded, lambda m: fold_input(m, pre), form)

    def audited(self, loaded: Model, data: Data) -> Audit | None:
        """What is odd about the calibration samples, said now and in the report."""
        recipe, samples = self.line.job.recipe, data.calibration
        if samples is None or recipe.effort == "fast":
            return None
        judged = data.evaluation.spread(_COMPARED)
        key = {
            "model": loaded.sha256,
            "data": [samples.sha256(), judged.sha256()],
            "form": [asdict(recipe.preprocess()), recipe.task, recipe.scores],
        }
        progress = self.line.job.progress

        def make(out: Path) -> None:
            found = audit(loaded, samples, recipe, judged=judged, advance=progress.advance)
            found.save(out / _AUDIT)

        folder, reused = self.line.stage("audit", key, make, len(samples))
        found = Audit.load(folder / _AUDIT)
        self.line.done("audit", found.in_short(), reused)
        for finding in found.warnings:
            progress.caution(finding.line())
        return found

    def judged(self, target: Target, graphs: dict[str, Model], data: Data) -> Judged:
        """A float engine against the untouched model."""
        loaded = graphs.get("rawinput", graphs["loaded"])
        built = self.line.engine(graphs["fused"], target, self.precision)
        recipe = self.line.job.recipe
        limits = limits_for(target, self.precision, recipe, loaded, data.evaluation)
        return self.line.judged(built, loaded, data.evaluation, limits)


def with_approximations(target: Target, recipe: Recipe) -> Target:
    """The target compiling with the cheaper activations the user asked for, in front of its own."""
    asked = tuple(f"approximate_{name}" for name in recipe.approximate)
    for name in asked:
        registry.path("fusion", name)
    return target.model_copy(update={"engine_fusions": (*asked, *target.engine_fusions)})


def _judging(recipe: Recipe, precision: Precision) -> Recipe:
    """The recipe whose data all judges when nothing is calibrated."""
    if precision in QUANTIZED or recipe.int4_weights:
        return recipe
    return recipe.model_copy(update={"data": None, "eval_data": recipe.eval_data or recipe.data})
