"""The run on the device, step by step: check, build, compare, time; all of it into one report."""

from __future__ import annotations

import time

from deploy.on_device.device_error import DeviceError, MissingLibraryError
from deploy.on_device.device_facts import clocks_now, device_facts
from deploy.on_device.device_report import ENGINE_FILE, REBUILT_FILE, DeviceReport
from deploy.on_device.engine_trial import Trial, Trials
from deploy.on_device.finish_plan import (
    FinishOptions,
    check_trtexec,
    plugins_wanted,
    scales_way,
)
from deploy.on_device.latency_check import moved_clocks
from deploy.on_device.manifest_check import (
    Manifest,
    RefusedError,
    check_capability,
    check_version,
    file_problems,
)
from deploy.on_device.plugin_choice import choice_row, with_plugins
from deploy.on_device.python_way import PythonWay
from deploy.on_device.trtexec_command import find_trtexec
from deploy.on_device.trtexec_way import TrtexecWay

_ALONE = "run again with --without-plugins"


class Finish:
    """One run over a folder; every step prints its line and fills the report."""

    def __init__(self, options: FinishOptions, manifest: Manifest) -> None:
        self.options = options
        self.manifest = manifest
        self.report = DeviceReport(manifest)
        self.folder = options.folder
        self.build_folder = options.folder / "build"
        self.started = time.perf_counter()

    def run(self) -> None:
        """All steps. What is wrong with the engine goes into the report; DeviceError where there
        can be none, RefusedError where folder and device don't fit."""
        self.check_files()
        way = self.open_way()
        self.check_device(way)
        device = self.report.found["device"]
        trials = Trials(self.manifest, self.options, way, device, self.say, lambda: self.seen(way))
        plugins, reason = plugins_wanted(self.manifest, self.options)
        if plugins is None:
            self.better_engine(trials)
            return
        if reason:
            self.report.found["plugin_choice"] = choice_row(plugins, reason)
            self.say("plugins", f"{'used' if plugins else 'left out'}: {reason}")
        self.only_engine(trials, Trial(plugins, self.report.found, self.report.problems))

    def only_engine(self, trials: Trials, trial: Trial) -> None:
        """One engine, straight into the report."""
        packed = ENGINE_FILE in self.manifest.files
        if packed and not self.options.rebuild:
            trials.take(trial, self.folder / ENGINE_FILE)
        else:
            trials.build(trial, self.folder / self.engine_file)
        trials.compare(trial)
        if self.options.latency:
            self.keep_latency(trials, trial)

    def better_engine(self, trials: Trials) -> None:
        """Both engines, and the report of the faster one that passes."""
        plain, ours = Trial(False), Trial(True)
        for trial in (plain, ours):
            try:
                trials.build(trial, self.build_folder / f"{trial.label}.engine".replace(" ", "_"))
                trials.compare(trial)
            except RefusedError:
                raise
            except DeviceError as error:
                trial.error = str(error)
                self.warn(f"no engine {trial.label}: {error}")
        if plain.error and ours.error:
            raise DeviceError(f"no engine without plugins: {plain.error}; with them: {ours.error}")
        plugins, reason = self.raced(trials, plain, ours)
        kept, other = (ours, plain) if plugins else (plain, ours)
        self.say("plugins", f"{'kept' if plugins else 'left out'}: {reason}")
        self.report.found.update(kept.rows)
        self.report.problems += kept.problems
        self.report.found["plugin_choice"] = choice_row(plugins, reason, ours, plain)
        path = self.folder / self.engine_file
        if kept.path is not None:
            kept.path.replace(path)
            self.report.found["engine"]["file"] = path.name
        if other.path is not None:
            other.path.unlink()

    def raced(self, trials: Trials, plain: Trial, ours: Trial) -> tuple[bool, str]:
        """Whether the engine with plugins is kept, and why; the kept one is timed."""
        if plain.passed and ours.passed:
            try:
                self.keep_latency(trials, plain, ours)
            except DeviceError as error:
                ours.error = f"timing both by turns failed: {error}"
                self.warn(ours.error)
        plugins, reason = with_plugins(ours, plain)
        kept = ours if plugins else plain
        if kept.rows["latency"] is None:
            try:
                self.keep_latency(trials, kept)
            except DeviceError as error:
                if not ours.error:
                    raise
                # a kernel that reads where nothing lies stops the GPU for the whole process
                raise DeviceError(f"{error}, behind {ours.error}; {_ALONE}") from None
        return plugins, reason

    @property
    def engine_file(self) -> str:
        """What an engine that is built here is called."""
        return REBUILT_FILE if ENGINE_FILE in self.manifest.files else ENGINE_FILE

    def say(self, step: str, text: str) -> None:
        """A finished step's line, with the seconds since the one before."""
        now = time.perf_counter()
        print(f"  {step:<11} {text}  ({now - self.started:.1f} s)", flush=True)
        self.started = now

    def warn(self, text: str) -> None:
        """A line that needs no action."""
        print(f"  warning     {text}", flush=True)

    def check_files(self) -> None:
        """Every file is as the host packed it; RefusedError names those that aren't."""
        problems = file_problems(self.manifest)
        if problems:
            self.report.problems += problems[1:]
            raise RefusedError(f"{problems[0]}; copy the folder again, or build the bundle again")
        self.say("files", f"{len(self.manifest.files)} as packed")

    def open_way(self) -> PythonWay | TrtexecWay:
        """The Python bindings, or trtexec where it's asked for or they are missing."""
        library = self.manifest.nvidia["library"]
        self.build_folder.mkdir(exist_ok=True)
        if self.options.trtexec is not None:
            check_trtexec(self.manifest)
            tool = find_trtexec(self.options.trtexec)
        else:
            try:
                return PythonWay(library)
            except MissingLibraryError as error:
                tool = self._instead(error)
        return TrtexecWay(tool, self.build_folder / "trtexec.log")

    def _instead(self, error: MissingLibraryError) -> str:
        """trtexec, said aloud; the error where there is none either, or it can't do it."""
        if self.manifest.nvidia["library"] != "tensorrt":
            raise error
        try:
            tool = find_trtexec()
        except MissingLibraryError as other:
            raise MissingLibraryError(f"{error}; and {other}") from None
        self.warn(f"{error}; going on with {tool}")
        return tool

    def check_device(self, way: PythonWay | TrtexecWay) -> None:
        """What this device is; RefusedError where the folder is for another."""
        manifest, options = self.manifest, self.options
        found = device_facts(options.root)
        found.update({key: value for key, value in way.device().items() if value})
        found.update({"library": manifest.nvidia["library"], "version": way.version})
        self.report.found["device"] = found
        exact = scales_way(manifest, options, way.name) == "cache"
        ranges = isinstance(way, PythonWay)
        self.override(
            check_version(manifest, way.version, exact=exact, allow=options.allow, ranges=ranges)
        )
        # trtexec tells it only when it builds
        if found["compute_capability"] or isinstance(way, PythonWay):
            self.override(check_capability(manifest, found["compute_capability"], options.allow))
        known = [found["name"], f"compute capability {found['compute_capability'] or 'unknown'}"]
        known += [f"{found['library']} {way.version}"]
        known += [f"JetPack {found['jetpack']}"] if found["jetpack"] else []
        self.say("device", ", ".join(text for text in [*known, found["nvpmodel"]] if text))

    def seen(self, way: PythonWay | TrtexecWay) -> None:
        """What trtexec tells of the GPU only when it builds."""
        if isinstance(way, TrtexecWay):
            found = way.device()
            self.report.found["device"].update(found)
            capability = found.get("compute_capability", "")
            self.override(check_capability(self.manifest, capability, self.options.allow))

    def override(self, note: str) -> None:
        """Keep a refusal that `--allow` waived."""
        if note and note not in self.report.overrides:
            self.report.overrides.append(note)
            self.warn(f"allowed: {note}")

    def keep_latency(self, trials: Trials, *timed: Trial) -> None:
        """How long a run of each takes, and the clocks around all."""
        before = clocks_now(self.options.root)
        trials.time(timed)
        after = clocks_now(self.options.root)
        told = []
        for trial in timed:
            row = trial.rows["latency"]
            row.update(clocks_before=before, clocks_after=after)
            told.append(f"{row['median_ms']:.3f} ms" + (f" {trial.label}" if timed[1:] else ""))
        row = timed[0].rows["latency"]
        self.say("latency", f"{', '.join(told)} (median of {row['runs']}); {row['how']}")
        moved = moved_clocks(before, after)
        if moved:
            self.warn(f"clocks moved while timing ({'; '.join(moved)}); fix them, then run again")
