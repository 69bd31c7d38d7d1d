"""An engine of the folder, tried on this device: built, compared and timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from deploy.on_device.device_error import DeviceError
from deploy.on_device.device_report import write_whole
from deploy.on_device.finish_plan import FinishOptions, plan_of, trtexec_files
from deploy.on_device.int8_layers import EIGHT_BITS, int8_row
from deploy.on_device.manifest_check import Manifest, file_sha256
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
from deploy.on_device.trtexec_way import TrtexecWay

# trtexec loads the engine anew for every sample
_TRTEXEC_SAMPLES = 8


class Trial:
    """plugins: whether it has kernels of ours. rows: its part of the report; problems: why it isn't
    what was wanted; error: why there is none, or none that runs. one_of_two: lines say which."""

    def __init__(
        self, plugins: bool, rows: dict[str, Any] | None = None, problems: list[str] | None = None
    ) -> None:
        self.plugins = plugins
        self.one_of_two = rows is None
        self.rows: dict[str, Any] = {"parity": None, "latency": None} if rows is None else rows
        self.problems: list[str] = [] if problems is None else problems
        self.error = ""
        self.path: Path | None = None
        self.plan = BuildPlan(b"")

    @property
    def label(self) -> str:
        """As lines name it."""
        return "with plugins" if self.plugins else "without plugins"

    @property
    def passed(self) -> bool:
        """Whether it runs and misses nothing."""
        return not self.error and not self.problems


class Trials:
    """Tries engines of a folder. device: its row of the report. say: prints a finished step's line.
    seen: called after trtexec's builds, which tell more of the device."""

    def __init__(
        self,
        manifest: Manifest,
        options: FinishOptions,
        way: PythonWay | TrtexecWay,
        device: Mapping[str, Any],
        say: Callable[[str, str], None],
        seen: Callable[[], None],
    ) -> None:
        self.manifest = manifest
        self.options = options
        self.way = way
        self._device = device
        self._say = say
        self._seen = seen
        self._parity: ParityData | None = None

    def build(self, trial: Trial, path: Path) -> None:
        """Build its engine into a file."""
        self._plan(trial)
        built = self._built(trial)
        write_whole(path, built.engine)
        self._engine_row(trial, path, self.way.name, built.seconds)
        counts = f"{len(built.layers)} layers"
        row = None
        precision = self.manifest["precision"]
        if precision in EIGHT_BITS:
            # of Q/DQ the manifest names the layers, of a cache the list beside it
            named = dict.fromkeys(self.manifest.content.get("quantized_layers") or [], precision)
            asked = trial.plan.layer_precisions or named
            row = int8_row(built.layers, asked, built.messages, precision)
            counts += f", {row['layers_int8']} in {precision}"
        trial.problems += built.problems
        trial.rows.update(
            layers=built.layers, messages=built.messages, on_dla=built.on_dla, int8=row
        )
        if built.on_dla:
            count = sum(built.on_dla.values())
            counts += f", {count} of {len(built.on_dla)} layers on the DLA"
        self.say(trial, "engine", f"{path.stat().st_size / 1e6:.1f} MB, {counts}")

    def take(self, trial: Trial, path: Path) -> None:
        """Take the engine that the host built."""
        self._plan(trial)
        self._engine_row(trial, path, "prebuilt", 0.0)
        self.say(trial, "engine", f"{path.stat().st_size / 1e6:.1f} MB, as the host built it")

    def compare(self, trial: Trial) -> None:
        """Its numbers against the host's; a missed gate is a problem."""
        wanted = self.manifest["parity"]
        with self._opened(trial) as engine:
            scores = wanted.get("scores")
            found = compare_numbers(self.data, self.manifest["inputs"], engine.run, scores)
        found["gates"] = number_gates(found, wanted)
        trial.rows["parity"] = found
        trial.problems += [
            f"{gate['name']} is {gate['observed']:.4g}, needs {gate['limit']:.4g}"
            for gate in found["gates"]
            if not gate["passed"]
        ]
        worst = min(found["outputs"], key=lambda row: float(row["sqnr_db"]))
        text = f"{worst['sqnr_db']:.1f} dB to float32"
        if worst["simulated_sqnr_db"] is not None:
            text += f", {worst['simulated_sqnr_db']:.1f} dB to the host's simulation"
        self.say(trial, "parity", f"{text}, {found['samples']} samples")

    def time(self, trials: Sequence[Trial]) -> None:
        """The latency row of each, with the same feeds and by turns."""
        first = next(parity_runs(self.data, self.manifest["inputs"]))
        way: Any = self.way
        with ExitStack() as stack:
            engines = [stack.enter_context(self._opened(trial)) for trial in trials]
            rows = way.time(engines, first.feeds, self.options.runs, first.batch)
        for trial, row in zip(trials, rows):
            trial.rows["latency"] = row

    @property
    def data(self) -> ParityData:
        """What to compare with, read when it's needed: building wants the memory too."""
        if self._parity is None:
            data = load_parity(self.manifest.folder / "parity")
            few = isinstance(self.way, TrtexecWay)
            self._parity = data.first(_TRTEXEC_SAMPLES) if few else data
        return self._parity

    def say(self, trial: Trial, step: str, text: str) -> None:
        """A line about one engine."""
        self._say(step, f"{text}; {trial.label}" if trial.one_of_two else text)

    def _opened(self, trial: Trial) -> Any:
        """Its engine, a context manager."""
        if trial.path is None:
            raise DeviceError(f"no engine {trial.label} was built")
        return self.way.open(trial.path, trial.plan)

    def _plan(self, trial: Trial) -> None:
        trial.plan = plan_of(self.manifest, self.options, self.way.name, trial.plugins)
        if trial.plugins:
            trial.plan.plugin_libraries = self._plugins(trial)

    def _plugins(self, trial: Trial) -> list[str]:
        """The plugin libraries, built for this GPU."""
        capability = (
            self._device["compute_capability"] or self.manifest.nvidia["compute_capability"]
        )
        built = build_plugins(self.manifest, capability, self.way.version)
        trial.rows["plugins"] = [dict(library._asdict()) for library in built]
        names = ", ".join(library.folder for library in built)
        self._say("plugins", f"{names} for compute capability {capability}")
        return sorted({str(self.manifest.folder / library.library) for library in built})

    def _built(self, trial: Trial) -> Built:
        """The engine by that way; trtexec is told where everything lies."""
        if isinstance(self.way, PythonWay):
            return self.way.build(trial.plan)
        scratch = self.manifest.folder / "build"
        engine = scratch / "trtexec.engine"
        files = trtexec_files(self.manifest, trial.plugins, engine, scratch)
        built = self.way.build_files(trial.plan, files)
        self._seen()
        return built

    def _engine_row(self, trial: Trial, path: Path, how: str, seconds: float) -> None:
        """The engine's row of the report."""
        trial.path = path
        trial.rows["built_with"] = how
        trial.rows["engine"] = {
            "file": path.name,
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
            "seconds": seconds,
        }
