"""A build in 8 bits, each stage made once: equalize, calibrate, choose, quantize, correct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.artifacts.precision import LayerNoise, load_noise, save_noise
from deploy.artifacts.ranges import Ranges
from deploy.batches import single_run
from deploy.build import compiled, for_compiler
from deploy.calibrate import calibrate, source_of
from deploy.cluster.calibrate import calibrate_on
from deploy.cluster.workers import Workers
from deploy.correct import CORRECT_ON, correct
from deploy.data import Data, SampleSet
from deploy.equalize import equalize
from deploy.errors import CalibrationError
from deploy.int8.choose import choose
from deploy.int8.race import Race, entry_of, foretold, preference, timed
from deploy.int8.variants import Candidate
from deploy.judge import limits_for
from deploy.line import Judged, Line
from deploy.nvidia.dialect import for_its_compiler, twin
from deploy.placement import Exclude
from deploy.plugin.ops import plugin_nodes
from deploy.quantize import quantize
from deploy.recipe import Recipe
from deploy.sensitivity.alone import sensitivity
from deploy.target import QUANTIZED, Precision, Target

_RANGES = "ranges.json"
_NOISE = "sensitivity.json"
_RACE = "race.json"
_SENSITIVITY_ON = 32


class Int8Stages:
    """What one job has equalized, measured and built so far."""

    def __init__(
        self, line: Line, target: Target, graphs: dict[str, Model], data: Data, precision: Precision
    ) -> None:
        self.line = line
        self.recipe = line.job.recipe
        self.target = target
        self.precision = precision
        self.fused = graphs["fused"]
        self.loaded = graphs.get("rawinput", graphs["loaded"])
        self.data = data
        self._plain: dict[str, Model] = {}

    @property
    def calibrated(self) -> bool:
        """Whether there are samples to measure on, not only a ranges file."""
        return self.data.calibration is not None

    @property
    def known_noise(self) -> tuple[LayerNoise, ...]:
        """The sensitivity, where somebody asked for it."""
        found: tuple[LayerNoise, ...] = self.__dict__.get("noise", ())
        return found

    @property
    def _samples(self) -> SampleSet:
        if self.data.calibration is None:
            raise CalibrationError("no calibration samples; give --data")
        return self.data.calibration

    @cached_property
    def equalized(self) -> Model:
        """The fused graph, rescaled where that helps INT8; itself where nothing is to be done."""
        names = self.target.equalizations
        if self.recipe.effort == "fast" or self.data.calibration is None or not names:
            return self.fused
        symmetric = self.target.quantization.activation_symmetric
        settings = [names, symmetric, self._samples.sha256()]
        return self.line.model(
            "equalize",
            self.fused,
            lambda m: equalize(m, self._samples, names, symmetric=symmetric),
            settings,
        )

    @cached_property
    def ranges(self) -> Ranges:
        """Measured, or the user's own file."""
        if self.recipe.ranges is not None:
            return self._given(Path(self.recipe.ranges))
        model, samples, name = self.equalized, self._samples, self.recipe.calibrator
        key = {"model": model.sha256, "data": samples.sha256(), "calibrator": name}
        advance = self.line.job.progress.advance

        def make(out: Path) -> None:
            size, where = self.recipe.batch_size, self.recipe.workers
            if where is None:
                found = calibrate(model, samples, name, batch_size=size, advance=advance)
            else:
                with Workers.parse(where) as workers:
                    found = calibrate_on(
                        workers, model, samples, name, batch_size=size, advance=advance
                    )
            found.save(out / _RANGES)

        folder, reused = self.line.stage("calibrate", key, make, len(samples))
        ranges = Ranges.load(folder / _RANGES)
        samples.check_unchanged(ranges.source.sample_sha256)
        words = f"{len(ranges.tensors)} tensors, {name}, {len(samples)} samples"
        if ranges.infinite:
            words += f"; {len(ranges.infinite)} with Inf in them stay float"
        self.line.done("calibrate", words, reused)
        return ranges

    def _given(self, path: Path) -> Ranges:
        """The user's ranges file, refused when it isn't of this model, data and settings."""
        self.line.job.progress.start("calibrate")
        ranges = Ranges.load(path)
        model, samples, name = self.equalized, self.data.calibration, self.recipe.calibrator
        if samples is not None:
            reason = ranges.why_not(source_of(model, samples, name))
        elif ranges.source.model_sha256 != model.sha256:
            reason = ranges.why_not(source_of(model, (), name))
            reason = f"{reason} (without --data no model is equalized: give the same one)"
        else:
            reason = None
        if reason is not None:
            raise CalibrationError(f"{path}: {reason}; leave out --ranges to calibrate again")
        self.line.done("calibrate", f"{len(ranges.tensors)} tensors from {path}", reused=True)
        return ranges

    @cached_property
    def noise(self) -> tuple[LayerNoise, ...]:
        """What each layer alone costs the outputs, the noisiest first."""
        samples = self._samples.spread(_SENSITIVITY_ON)
        key = {
            "model": self.equalized.sha256,
            "ranges": _numbers(self.ranges),
            "form": [self.target.placement, self.target.quantization.model_dump()],
            "data": samples.sha256(),
        }

        def make(out: Path) -> None:
            found = sensitivity(self.equalized, self.ranges, self.target, list(samples))
            save_noise(found.layers, out / _NOISE)

        folder, reused = self.line.stage("sensitivity", key, make)
        found = load_noise(folder / _NOISE)
        worst = f", the noisiest {found[0].layer} at {found[0].noise_db:.1f} dB" if found else ""
        self.line.done("sensitivity", f"{len(found)} layers{worst}", reused)
        return found

    def race(self, listed: Sequence[Candidate]) -> Race:
        """The candidates by time: measured on this machine, predicted for another one."""
        if not measures(self.recipe):
            first = listed[0]
            only = self._quantized(first.exclude, first.target)
            entry = entry_of(first.name, first.description, only, self.precision)
            return Race((first.name,), (entry,), False)
        models = self._models(listed)
        entries = [entry_of(n, c.description, m, c.precision) for n, (c, m) in models.items()]
        if not self.target.host:
            return foretold(entries, models)
        if len(entries) == 1:
            return Race((entries[0].name,), tuple(entries), False)
        key = {
            "models": {n: m.sha256 for n, (_, m) in models.items()},
            "engines": {n: c.target.engine.model_dump(mode="json") for n, (c, _) in models.items()},
            "rewritten": {n: c.target.engine_fusions for n, (c, _) in models.items()},
            "budget_s": self.recipe.search_s,
        }

        def opener(candidate: Candidate, model: Model) -> Engine:
            told = self._told(candidate, model)
            lowered = for_compiler(told, candidate.target, candidate.precision)
            return compiled(lowered, candidate.target, candidate.precision)

        def make(out: Path) -> None:
            opened = {n: (lambda c=c, m=m: opener(c, m)) for n, (c, m) in models.items()}
            found = choose(
                opened,
                lambda engine: single_run(engine.inputs, self.data.evaluation),
                needed=_needed(models),
                rivals=_floats(models),
                preference=preference(entries),
                budget_s=self.recipe.search_s,
            )
            timed(entries, found).save(out / _RACE)

        folder, reused = self.line.stage("choose", key, make)
        found = Race.load(folder / _RACE)
        self.line.done("choose", found.words(), reused)
        # a missing compiler is said once, not for each of them
        notes = {e.note: e.name for e in reversed(found.entries) if models[e.name][0].plain}
        for note, name in notes.items():
            if note:
                self.line.job.progress.caution(f"no engine {name}: {note}")
        return found

    def _models(self, listed: Sequence[Candidate]) -> dict[str, tuple[Candidate, Model]]:
        """What each candidate is compiled from, without corrections, which take no time there;
        of several that come to the same engine the first."""
        found: dict[str, tuple[Candidate, Model]] = {}
        seen: set[str] = set()
        for candidate in listed:
            if candidate.precision in QUANTIZED:
                try:
                    model = self._quantized(candidate.exclude, candidate.target)
                except CalibrationError:
                    if not found:
                        raise
                    continue  # nothing is left in it to quantize
            else:
                model = self.fused
            if candidate.plain and not _has_plugins(candidate, self._told(candidate, model)):
                continue
            settings = f"{candidate.target.engine} {candidate.target.engine_fusions}"
            same = f"{model.sha256} {candidate.precision} {settings}"
            if same not in seen:
                seen.add(same)
                found[candidate.name] = (candidate, model)
        return found

    def _quantized(self, exclude: Exclude, target: Target) -> Model:
        return quantize(self.equalized, self.ranges, twin(target), exclude=exclude)

    def _told(self, candidate: Candidate, model: Model) -> Model:
        """What a candidate's graph is compiled from."""
        if candidate.precision not in QUANTIZED:
            return model
        exact, ranges = self.equalized, self.ranges
        return for_its_compiler(model, exact, ranges, candidate.target, candidate.exclude)

    def judged(self, candidate: Candidate) -> Judged:
        """A candidate's engine, its biases corrected, against the untouched model."""
        model = self.fused
        if candidate.precision in QUANTIZED:
            model = self._corrected(candidate)
        told = self._told(candidate, model)
        built = self.line.engine(told, candidate.target, candidate.precision)
        built = replace(built, graph=model)
        evaluation = self.data.evaluation
        limits = limits_for(self.target, candidate.precision, self.recipe, self.loaded, evaluation)
        return self.line.judged(built, self.loaded, evaluation, limits)

    def uncorrected(self, name: str) -> Model | None:
        """What a judged candidate was before its corrections; None where nothing was corrected."""
        return self._plain.get(name)

    def _corrected(self, candidate: Candidate) -> Model:
        form = [candidate.target.placement, candidate.target.quantization.model_dump()]
        form += [_numbers(self.ranges), candidate.target.quantized_fusions]
        form.append(asdict(candidate.exclude))
        model = self.line.model(
            "quantize",
            self.equalized,
            lambda _: self._quantized(candidate.exclude, candidate.target),
            form,
        )
        names = self.target.corrections
        if self.recipe.effort == "fast" or self.data.calibration is None or not names:
            return model
        samples = self._samples.spread(CORRECT_ON)
        # its decisions are told by the corrected one
        self._plain[candidate.name] = model.derive(model.proto, ())
        made = self.line.model(
            "correct",
            model,
            lambda m: correct(m, self.equalized, list(samples), names),
            [names, self.equalized.sha256, samples.sha256()],
        )
        return made.derive(made.proto, [*model.decisions, *made.decisions])


def measures(recipe: Recipe) -> bool:
    """Whether candidates are tried; else the first one listed is taken."""
    return recipe.effort != "fast" and recipe.search_s != 0


def _needed(models: Mapping[str, tuple[Candidate, Model]]) -> list[str]:
    """What is measured whatever it takes: INT8 that wasn't compared with float must not be shipped
    as the faster one, and kernels of ours are told whether they pay."""
    return _floats(models) + [n for n, (c, _) in models.items() if c.plain][:1]


def _floats(models: Mapping[str, tuple[Candidate, Model]]) -> list[str]:
    return [n for n, (c, _) in models.items() if c.precision not in QUANTIZED and not c.plain]


def _has_plugins(candidate: Candidate, model: Model) -> bool:
    """Whether the compiler gets an operator that a kernel of ours runs."""
    lowered = for_compiler(model, candidate.target, candidate.precision)
    return bool(plugin_nodes(lowered.proto))


def _numbers(ranges: Ranges) -> dict[str, list[float]]:
    return {name: [t.range.low, t.range.high] for name, t in ranges.tensors.items()}
