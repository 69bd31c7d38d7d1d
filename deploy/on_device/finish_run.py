"""The run on the device, step by step: check, build, compare, time; all of it into one report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from deploy.on_device.device_error import MissingLibraryError
from deploy.on_device.device_facts import clocks_now, device_facts
from deploy.on_device.device_report import ENGINE_FILE, REBUILT_FILE, DeviceReport, write_whole
from deploy.on_device.finish_plan import (
    FinishOptions,
    check_trtexec,
    model_file,
    packed_file,
    plan_of,
    scales_way,
)
from deploy.on_device.int8_layers import int8_row
from deploy.on_device.latency_check import moved_clocks
from deploy.on_device.manifest_check import (
    Manifest,
    RefusedError,
    check_capability,
    check_version,
    file_problems,
    file_sha256,
)
from deploy.on_device.numbers_check import (
    ParityData,
    compare_numbers,
    load_parity,
    number_gates,
    parity_runs,
)
from deploy.on_device.plugin_build import build_plugins
from deploy.on_device.python_way import PythonWay
from deploy.on_device.trt_plan import BuildPlan, Built
from deploy.on_device.trtexec_command import TrtexecFiles, find_trtexec
from deploy.on_device.trtexec_way import TrtexecEngine, TrtexecWay

# trtexec loads the engine anew for every sample
_TRTEXEC_SAMPLES = 8


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
        plan = plan_of(self.manifest, self.options, way.name)
        if self.options.plugins:
            plan.plugin_libraries = self.plugins(way)
        path = self.engine(way, plan)
        data = load_parity(self.folder / "parity")
        if isinstance(way, PythonWay):
            opened: Any = way.open(path.read_bytes(), plan)
        else:
            opened = TrtexecEngine(way, path, plan)
            data = data.first(_TRTEXEC_SAMPLES)
        with opened as engine:
            self.parity(engine, data)
            if self.options.latency:
                self.latency(engine, data)

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
        self.override(check_version(manifest, way.version, exact=exact, allow=options.allow))
        # trtexec tells it only when it builds
        if found["compute_capability"] or isinstance(way, PythonWay):
            self.override(check_capability(manifest, found["compute_capability"], options.allow))
        known = [found["name"], f"compute capability {found['compute_capability'] or 'unknown'}"]
        known += [f"{found['library']} {way.version}"]
        known += [f"JetPack {found['jetpack']}"] if found["jetpack"] else []
        self.say("device", ", ".join(text for text in [*known, found["nvpmodel"]] if text))

    def override(self, note: str) -> None:
        """Keep a refusal that `--allow` waived."""
        if note and note not in self.report.overrides:
            self.report.overrides.append(note)
            self.warn(f"allowed: {note}")

    def plugins(self, way: PythonWay | TrtexecWay) -> list[str]:
        """The plugin libraries, built for this GPU."""
        capability = self.report.found["device"]["compute_capability"]
        capability = capability or self.manifest.nvidia["compute_capability"]
        built = build_plugins(self.manifest, capability, way.version)
        self.report.found["plugins"] = [dict(library._asdict()) for library in built]
        if built:
            names = ", ".join(library.folder for library in built)
            self.say("plugins", f"{names} for compute capability {capability}")
        return sorted({str(self.folder / library.library) for library in built})

    def engine(self, way: PythonWay | TrtexecWay, plan: BuildPlan) -> Path:
        """The engine's file: the host's, or one that is built here."""
        packed = ENGINE_FILE in self.manifest.files
        if packed and not self.options.rebuild:
            path = self.folder / ENGINE_FILE
            self.found_engine(path, "prebuilt", 0.0)
            self.say("engine", f"{path.stat().st_size / 1e6:.1f} MB, as the host built it")
            return path
        built = self.built(way, plan)
        path = self.folder / (REBUILT_FILE if packed else ENGINE_FILE)
        write_whole(path, built.engine)
        self.found_engine(path, way.name, built.seconds)
        counts = f"{len(built.layers)} layers"
        row = None
        if self.manifest["precision"] == "int8":
            row = int8_row(built.layers, plan.layer_precisions, built.messages)
            counts += f", {row['layers_int8']} in int8"
        self.report.problems += built.problems
        self.report.found.update(
            layers=built.layers, messages=built.messages, on_dla=built.on_dla, int8=row
        )
        self.say("engine", f"{path.stat().st_size / 1e6:.1f} MB, {counts}")
        return path

    def built(self, way: PythonWay | TrtexecWay, plan: BuildPlan) -> Built:
        """The engine by that way; trtexec is told where everything lies."""
        if isinstance(way, PythonWay):
            return way.build(plan)
        files = TrtexecFiles(
            model=self.folder / model_file(self.manifest, self.options),
            cache=self.folder / packed_file(self.manifest, self.options, "calibration.cache"),
            engine=self.build_folder / "trtexec.engine",
            layers=self.build_folder / "layers.json",
            timing_cache=self.build_folder / "timing.cache",
        )
        built = way.build_files(plan, files)
        device = way.device()
        self.report.found["device"].update(device)
        capability = device.get("compute_capability", "")
        self.override(check_capability(self.manifest, capability, self.options.allow))
        return built

    def found_engine(self, path: Path, how: str, seconds: float) -> None:
        """The engine's row of the report."""
        self.report.found["built_with"] = how
        self.report.found["engine"] = {
            "file": path.name,
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
            "seconds": seconds,
        }

    def parity(self, engine: Any, data: ParityData) -> None:
        """The engine's numbers; a missed gate is a problem."""
        wanted = self.manifest["parity"]
        found = compare_numbers(data, self.manifest["inputs"], engine.run, wanted.get("scores"))
        found["gates"] = number_gates(found, wanted)
        self.report.found["parity"] = found
        self.report.problems += [
            f"{gate['name']} is {gate['observed']:.4g}, needs {gate['limit']:.4g}"
            for gate in found["gates"]
            if not gate["passed"]
        ]
        worst = min(found["outputs"], key=lambda row: float(row["sqnr_db"]))
        text = f"{worst['sqnr_db']:.1f} dB to float32"
        if worst["simulated_sqnr_db"] is not None:
            text += f", {worst['simulated_sqnr_db']:.1f} dB to the host's simulation"
        self.say("parity", f"{text}, {found['samples']} samples")

    def latency(self, engine: Any, data: ParityData) -> None:
        """How long a run takes, and the clocks around it."""
        first = next(parity_runs(data, self.manifest["inputs"]))
        before = clocks_now(self.options.root)
        row = engine.latency(first.feeds, self.options.runs, first.batch)
        after = clocks_now(self.options.root)
        self.report.found["latency"] = {**row, "clocks_before": before, "clocks_after": after}
        self.say("latency", f"{row['median_ms']:.3f} ms (median of {row['runs']}); {row['how']}")
        moved = moved_clocks(before, after)
        if moved:
            self.warn(f"clocks moved while timing ({'; '.join(moved)}); fix them, then run again")
