"""TensorRT on this machine's NVIDIA GPU: from ONNX (float or Q/DQ) to an engine that runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.artifacts.engine import Engine, Layer
from deploy.artifacts.model import Model, TensorSpec
from deploy.errors import BuildError, MissingBackendError, one_line
from deploy.files import json_bytes, write_aside
from deploy.nvidia.host_plan import host_plan, rest_in
from deploy.nvidia.settings import Nvidia
from deploy.on_device.cuda_memory import open_device_memory
from deploy.on_device.device_error import DeviceError, MissingLibraryError
from deploy.on_device.trt_buffers import EngineTensor
from deploy.on_device.trt_build import build_plan
from deploy.on_device.trt_library import library_version, load_library, version_text
from deploy.on_device.trt_plan import BuildPlan
from deploy.on_device.trt_run import Runner
from deploy.plugin.libraries import Library, compiled_for_tensorrt, paths, read, stored
from deploy.target import EngineSettings

_ENGINE = "model.engine"
_IO = "engine.json"
_OTHERWISE = "name layers for --keep-float, or build another precision, or for another target"


def build(model: Model, settings: EngineSettings, precision: str) -> TrtEngine:
    """Compile a model for this GPU; BuildError when TensorRT refuses it, or isn't the target's."""
    nvidia = _nvidia(settings)
    trt = _library_for(nvidia)
    plan = host_plan(model, settings, nvidia, precision, str(trt.__version__))
    with _as_build_error(f"{model.name}: "):
        libraries = compiled_for_tensorrt(
            model.proto, model.name, nvidia.compute_capability, str(trt.__version__)
        )
        plan.plugin_libraries = paths(libraries)
        built = build_plan(trt, plan)
        if built.problems:
            raise DeviceError(f"{'; '.join(built.problems)}; {_OTHERWISE}")
        runner = Runner(trt, built.engine, plan.plugin_libraries, _dla_core(nvidia))
    inputs = _in_engine(model.inputs, runner.inputs, plan)
    outputs = _in_engine(model.outputs, runner.outputs, plan)
    layers = tuple(_layer(row) for row in built.layers)
    file = EngineFile(built.engine, libraries, _share_of_dla(built.on_dla))
    return TrtEngine(trt, runner, file, inputs, outputs, layers, rest_in(settings, precision))


def load(folder: Path, settings: EngineSettings, precision: str) -> TrtEngine:
    """An engine that `save` wrote; BuildError when the folder isn't one, or is of another GPU."""
    nvidia = _nvidia(settings)
    try:
        described = json.loads((folder / _IO).read_text(encoding="utf-8"))
        inputs = tuple(_spec_from(row) for row in described["inputs"])
        outputs = tuple(_spec_from(row) for row in described["outputs"])
        layers = tuple(_layer(row) for row in described["layers"])
        content = (folder / _ENGINE).read_bytes()
        rows = described.get("libraries", [])
        on_dla = str(described.get("on_dla", ""))
    except OSError as error:
        raise BuildError(f"{folder}: {error.strerror}: no engine there; build it again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{folder}: damaged engine: {one_line(error)}; build it again") from None
    trt = _library_for(nvidia)
    with _as_build_error(f"{folder}: "):
        libraries = read(folder, rows)
        runner = Runner(trt, content, paths(libraries), _dla_core(nvidia))
    file = EngineFile(content, libraries, on_dla)
    return TrtEngine(trt, runner, file, inputs, outputs, layers, rest_in(settings, precision))


def why_not_here(settings: EngineSettings) -> str | None:
    """Why an engine for these settings can't be built and run on this machine; None if it can."""
    try:
        _library_for(_nvidia(settings))
    except BuildError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class EngineFile:
    """What an engine is on disk: its bytes, the kernels of ours that it loads, and how much of the
    network a DLA takes, in words."""

    content: bytes
    libraries: tuple[Library, ...] = ()
    on_dla: str = ""


class TrtEngine(Engine):
    """An engine on this machine's GPU. It takes and gives the model's own types: where TensorRT 8
    has int32 for an int64, values are converted."""

    def __init__(
        self,
        trt: Any,
        runner: Runner,
        file: EngineFile,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        layers: tuple[Layer, ...],
        rest: str,
    ) -> None:
        super().__init__(inputs, outputs)
        self._trt = trt
        self._runner = runner
        self._file = file
        self._layers = layers
        self._rest = rest

    def save(self, folder: Path) -> None:
        write_aside(folder / _ENGINE, self._file.content)
        rows: dict[str, Any] = {
            "inputs": [_row(spec) for spec in self.inputs],
            "outputs": [_row(spec) for spec in self.outputs],
            "layers": [vars(layer) for layer in self._layers],
            "library": version_text(self._trt),
        }
        if self._file.libraries:
            rows["libraries"] = stored(self._file.libraries, folder)
        if self._file.on_dla:
            rows["on_dla"] = self._file.on_dla
        write_aside(folder / _IO, json_bytes(rows))

    def close(self) -> None:
        super().close()
        self._runner.close()

    def properties(self) -> dict[str, str]:
        memory = self._runner.memory
        cuda = memory.cuda_versions()
        on_dla = {"on_dla": self._file.on_dla} if self._file.on_dla else {}
        return {
            "device": f"GPU, compute capability {memory.compute_capability()}",
            "device_name": memory.device_name(),
            "library": version_text(self._trt),
            "cuda": f"{cuda['runtime']}, driver {cuda['driver']}",
            "inference_precision": self._rest,
            **on_dla,
        }

    def layers(self) -> tuple[Layer, ...]:
        return self._layers

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with _as_build_error():
            results = self._runner.run(feeds)
        return {
            spec.name: results[spec.name].astype(spec.dtype, copy=False) for spec in self.outputs
        }

    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        with _as_build_error():
            call = self._runner.prepare(feeds)

        def prepared() -> None:
            with _as_build_error():
                call()

        return prepared

    def _timed(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], float | None]:
        with _as_build_error():
            call = self._runner.timed(feeds)

        def timed() -> float | None:
            with _as_build_error():
                return call()

        return timed


@contextmanager
def _as_build_error(where: str = "") -> Iterator[None]:
    """What TensorRT's side says, as this side's errors."""
    try:
        yield
    except MissingLibraryError as error:
        raise MissingBackendError(
            f"{one_line(error)}; or here: pip install onnx-deploy[trt]"
        ) from None
    except DeviceError as error:
        raise BuildError(where + one_line(error, 2000)) from None


def _nvidia(settings: EngineSettings) -> Nvidia:
    if settings.nvidia is None:
        raise BuildError(
            "backend trt without [engine.nvidia] in the target; it says TensorRT's version, the "
            "compute capability and the typing to build with"
        )
    return settings.nvidia


def _library_for(nvidia: Nvidia) -> Any:
    """TensorRT as the target has it, on a GPU like the target's; BuildError with both values."""
    with _as_build_error():
        trt = load_library(nvidia.library)
        memory = open_device_memory()
    capability = memory.compute_capability()
    memory.close()
    if capability != nvidia.compute_capability:
        raise BuildError(
            f"this GPU is sm_{capability.replace('.', '')}, the target sm_{nvidia.sm}; engines are "
            "built on the device they are for"
        )
    release = ".".join(str(part) for part in library_version(trt)[:2])
    if release not in {version.rpartition(".")[0] for version in nvidia.versions}:
        raise BuildError(
            f"{version_text(trt)} is installed, the target has {', '.join(nvidia.versions)}; "
            "install that release"
        )
    return trt


def _share_of_dla(on_dla: Mapping[str, bool]) -> str:
    return f"{sum(on_dla.values())} of {len(on_dla)} layers" if on_dla else ""


def _dla_core(nvidia: Nvidia) -> int | None:
    return 0 if nvidia.use_dla else None


def _in_engine(
    specs: tuple[TensorSpec, ...], tensors: tuple[EngineTensor, ...], plan: BuildPlan
) -> tuple[TensorSpec, ...]:
    """The model's names, order and types with the engine's sizes; without unused inputs."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    for name, (low, _, high) in plan.profiles.items():
        if list(low) == list(high) and name in shapes:
            shapes[name] = tuple(low)
    return tuple(
        TensorSpec(spec.name, spec.dtype, shapes[spec.name])
        for spec in specs
        if spec.name in shapes
    )


def _layer(row: Mapping[str, Any]) -> Layer:
    fused = tuple(str(name) for name in row["fused_from"])
    return Layer(row["name"], row["kind"], row["precision"], row["kernel"], fused)


def _row(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": str(spec.dtype), "shape": list(spec.shape)}


def _spec_from(row: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(row["name"], np.dtype(row["dtype"]), tuple(row["shape"]))
