"""The engine by TensorRT's Python bindings: built, run and timed in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.on_device.cuda_memory import open_device_memory
from deploy.on_device.latency_check import latency_row, time_calls
from deploy.on_device.trt_build import build_plan
from deploy.on_device.trt_library import load_library
from deploy.on_device.trt_plan import BuildPlan, Built
from deploy.on_device.trt_run import Runner


class PythonWay:
    """TensorRT's or TensorRT-RTX's Python module and the GPU; MissingLibraryError without one."""

    name = "python"

    def __init__(self, library: str) -> None:
        self.trt = load_library(library)
        self.version = str(self.trt.__version__)
        self._device = _gpu_facts()

    def device(self) -> dict[str, str]:
        """Name, compute capability, CUDA runtime and driver of the GPU that is used."""
        return self._device

    def build(self, plan: BuildPlan) -> Built:
        """The engine of a plan."""
        return build_plan(self.trt, plan)

    def open(self, engine: Path, plan: BuildPlan) -> PythonEngine:
        """The engine in its file, loaded; a context manager."""
        core = plan.dla_core if plan.use_dla else None
        return PythonEngine(Runner(self.trt, engine.read_bytes(), plan.plugin_libraries, core))

    def time(
        self,
        engines: Sequence[PythonEngine],
        feeds: Mapping[str, np.ndarray],
        runs: int,
        batch: int,
    ) -> list[dict[str, Any]]:
        """The latency row of each engine, all run by turns."""
        how = "wall time of one inference after the other, data on the device"
        timings = time_calls([engine.timed(feeds) for engine in engines], runs)
        return [latency_row(found, how, batch) for found in timings]


def _gpu_facts() -> dict[str, str]:
    memory = open_device_memory()
    try:
        versions = memory.cuda_versions()
        return {
            "name": memory.device_name(),
            "compute_capability": memory.compute_capability(),
            "cuda": versions["runtime"],
            "cuda_driver": versions["driver"],
        }
    finally:
        memory.close()


class PythonEngine:
    """An engine that runs in this process."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def __enter__(self) -> PythonEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.close()

    def run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """All outputs by name."""
        outputs: Mapping[str, np.ndarray] = self._runner.run(feeds)
        return outputs

    def timed(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], float | None]:
        """A call that runs these feeds, already on the GPU, and gives the GPU's milliseconds."""
        call: Callable[[], float | None] = self._runner.timed(feeds)
        return call
