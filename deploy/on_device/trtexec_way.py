"""The engine by trtexec, where the Python bindings are missing: the same steps as commands.

Every inference is a process of its own, which loads the engine anew: only some samples are run.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.on_device.device_error import DeviceError
from deploy.on_device.int8_layers import all_float
from deploy.on_device.manifest_check import release
from deploy.on_device.trt_layers import layer_rows
from deploy.on_device.trt_plan import BuildPlan, Built
from deploy.on_device.trtexec_command import (
    TrtexecFiles,
    as_typed,
    build_command,
    once_flags,
    run_command,
    timing_flags,
)
from deploy.on_device.trtexec_log import (
    cache_problems,
    complaints,
    device_of_log,
    outputs_of_json,
    timing_of_log,
    version_of_log,
)

_BUILD_LIMIT_S = 4 * 3600
_RUN_LIMIT_S = 600
# that engines take turns
_ROUNDS = 3


class TrtexecWay:
    """trtexec at a path; its output is kept in `log`, which errors name."""

    name = "trtexec"

    def __init__(self, tool: str, log: Path) -> None:
        self.tool = tool
        self.log = log
        self.version = version_of_log(self._output([tool, "--help"], _RUN_LIMIT_S))
        self._device = ("", "")
        if not self.version:
            raise DeviceError(f"{tool} --help doesn't tell its TensorRT version; see {log}")

    def device(self) -> dict[str, str]:
        """Name and compute capability, as trtexec's last build printed them."""
        name, capability = self._device
        return {"name": name, "compute_capability": capability} if capability else {}

    def command(self, plan: BuildPlan, files: TrtexecFiles) -> list[str]:
        """What `build` runs."""
        return build_command(self.tool, plan, files, release(self.version))

    def build_files(self, plan: BuildPlan, files: TrtexecFiles) -> Built:
        """The engine of a plan; the graph and the cache are read from their files."""
        started = time.perf_counter()
        for made in (files.engine, files.layers):
            _remove(made)
        scaled = plan.scales if plan.quantization == "implicit" else None
        text = self._run(self.command(plan, files), _BUILD_LIMIT_S, scaled)
        self._device = device_of_log(text)
        problems = [] if scaled is None else cache_problems(text, scaled)
        if not files.engine.is_file():
            raise DeviceError(f"trtexec passed and left no engine; see {self.log}")
        engine = files.engine.read_bytes()
        _remove(files.engine)
        layers = _layers_of(files.layers)
        return Built(
            engine=engine,
            layers=layers,
            messages=complaints(text),
            problems=[*problems, *all_float(plan, layers)],
            seconds=time.perf_counter() - started,
        )

    def open(self, engine: Path, plan: BuildPlan) -> TrtexecEngine:
        """The engine in its file; a context manager."""
        return TrtexecEngine(self, engine, plan)

    def time(
        self,
        engines: Sequence[TrtexecEngine],
        feeds: Mapping[str, np.ndarray],
        runs: int,
        batch: int,
    ) -> list[dict[str, Any]]:
        """The latency row of each engine; several take turns, and each gives its middle row."""
        rounds = _ROUNDS if len(engines) > 1 else 1
        rows = [[engine.latency(feeds, runs, batch) for engine in engines] for _ in range(rounds)]
        return [
            sorted(of_one, key=lambda row: float(row["median_ms"]))[rounds // 2]
            for of_one in zip(*rows)
        ]

    def _run(
        self, command: Sequence[str], limit_s: int, scaled: Collection[str] | None = None
    ) -> str:
        """The output. scaled: the tensors of the cache that this is told, if it is."""
        text = self._output(command, limit_s)
        if "&&&& PASSED" not in text:
            of_cache = [] if scaled is None else cache_problems(text, scaled)
            said = "; ".join([*of_cache, *complaints(text)][:3]) or "nothing to say why"
            raise DeviceError(f"trtexec failed: {said}; the whole output is in {self.log}")
        return text

    def _output(self, command: Sequence[str], limit_s: int) -> str:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {as_typed(command)}\n")
        try:
            done = subprocess.run(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"trtexec took over {limit_s} s; see {self.log}") from None
        except OSError as error:
            raise DeviceError(f"{command[0]}: {error.strerror or error}; is it the tool?") from None
        text = done.stdout.decode("utf-8", "replace")
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{text}\n[exit code {done.returncode}]\n")
        return text if done.returncode == 0 else text.replace("&&&& PASSED", "")


def _remove(path: Path) -> None:
    if path.exists():
        path.unlink()


def _layers_of(path: Path) -> list[dict[str, Any]]:
    """The rows of --exportLayerInfo; none where trtexec wrote none."""
    return layer_rows(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else []


class TrtexecEngine:
    """An engine that trtexec loads for every run; a context manager over its scratch folder."""

    def __init__(self, way: TrtexecWay, engine: Path, plan: BuildPlan) -> None:
        self._way = way
        self._engine = engine
        self._plan = plan
        self._scratch = Path(tempfile.mkdtemp(prefix="trtexec-"))

    def __enter__(self) -> TrtexecEngine:
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(str(self._scratch), ignore_errors=True)

    def run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """All outputs by name, in the six digits trtexec prints."""
        outputs = self._scratch / "outputs.json"
        _remove(outputs)
        files = self._files(feeds)
        self._way._run([*self._command(feeds), *once_flags(files, outputs)], _RUN_LIMIT_S)
        return outputs_of_json(outputs.read_text(encoding="utf-8", errors="replace"))

    def latency(self, feeds: Mapping[str, np.ndarray], runs: int, batch: int) -> dict[str, Any]:
        """The latency row of a report."""
        flags = timing_flags(runs, release(self._way.version))
        return timing_of_log(self._way._run([*self._command(feeds), *flags], _RUN_LIMIT_S), batch)

    def _command(self, feeds: Mapping[str, np.ndarray]) -> list[str]:
        way, shapes = self._way, {n: x.shape for n, x in feeds.items() if n in self._plan.profiles}
        return run_command(way.tool, self._plan, self._engine, release(way.version), shapes)

    def _files(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Path]:
        files = {}
        for number, (name, x) in enumerate(feeds.items()):
            files[name] = self._scratch / f"input{number}.bin"
            files[name].write_bytes(np.ascontiguousarray(x).tobytes())
        return files
