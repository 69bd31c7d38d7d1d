"""TensorRT-RTX: from ONNX (float or Q/DQ) to a GeForce engine, built without a GPU, run with one.

The graph decides every layer's type (strong typing). A GPU finishes an engine's kernels when it
first loads it, so what an engine holds here are the compiler's choices: which operators became one
kernel, what each reads and writes, and in which type. They are read from its log, because only a
GPU opens an engine.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from deploy.artifacts.engine import Engine, Layer
from deploy.artifacts.model import Model, TensorSpec, graphs
from deploy.errors import BuildError, MissingBackendError, one_line
from deploy.files import json_bytes, write_aside
from deploy.nvidia.profiles import profiles
from deploy.nvidia.rtx_log import bytes_moved, layers_in
from deploy.nvidia.settings import Nvidia
from deploy.on_device.device_error import DeviceError
from deploy.on_device.trt_config import builder_config
from deploy.on_device.trt_library import LogLines, last_errors, library_version, made, version_text
from deploy.on_device.trt_network import read_network
from deploy.on_device.trt_plan import BuildPlan
from deploy.target import EngineSettings

_PLAN, _LAYERS, _ABOUT = "model.engine", "layers.json", "engine.json"
# what it builds without a GPU, by compute capability, of the targets there are
_CHIPS = {"8.6": "SM86", "8.9": "SM89", "12.0": "SM120"}
# NVIDIA's own package, and the wheels of the package index
_MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
_INSTALL = "pip install onnx-deploy[rtx] (NVIDIA's licence: the TensorRT-RTX SLA)"
_ONNX = ("", "ai.onnx")


def build(model: Model, settings: EngineSettings, precision: str) -> RtxEngine:
    """Compile for the target's compute capability; no GPU is needed.

    Of a free first dimension the engine takes 1 to 32 and is fastest at 8, of other free ones a
    quarter to four times the samples' sizes, 16 to 256 without any. float32 is exact in "fp32", and
    may run as TF32, whose mantissa is float16's, beside another precision. MissingBackendError
    without the library, BuildError with NVIDIA's words when
    it refuses the model.
    """
    nvidia = _nvidia(settings)
    chip = _chip(nvidia)
    _check_operators(model)
    trt = library()
    _check_version(trt, nvidia)
    log = LogLines(trt)
    try:
        plan, shapes = _compile(trt, log, _plan(model, nvidia, precision), chip)
    except DeviceError as error:
        raise BuildError(f"{model.name}: {one_line(error, 600)}") from None
    if plan is None:
        reason = one_line(last_errors(log, "it doesn't say why"), 600)
        raise BuildError(
            f"{model.name}: {version_text(trt)} can't build it for {chip}: {reason}; try --fp16, "
            "or keep the operator named there in float with --keep-float"
        )
    text = "\n".join(line for _, line in log.lines)
    layers = tuple(layers_in(text))
    facts = {
        "library": version_text(trt),
        "compute_capability": nvidia.compute_capability,
        "precision": precision,
        "kernels": str(len(layers)),
        "bytes_moved": str(bytes_moved(text)),
    }
    outputs = tuple(TensorSpec(s.name, s.dtype, shapes[s.name]) for s in model.outputs)
    return RtxEngine(plan, model.inputs, outputs, layers, facts)


def load(folder: Path, settings: EngineSettings, precision: str) -> RtxEngine:
    """An engine from the folder `save` wrote; its layers need no GPU and no library.

    BuildError when the folder isn't one, or holds an engine for another compute capability.
    """
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        rows = json.loads((folder / _LAYERS).read_text(encoding="utf-8"))
        plan = (folder / _PLAN).read_bytes()
        inputs, outputs = (
            tuple(TensorSpec(r["name"], np.dtype(r["dtype"]), tuple(r["shape"])) for r in about[k])
            for k in ("inputs", "outputs")
        )
        facts = {str(k): str(v) for k, v in about["facts"].items()}
        built_for, expected = facts["compute_capability"], about["sha256"]
        layers = tuple(
            Layer(r["name"], r["kind"], r["precision"], r["kernel"], tuple(r["fused_from"]))
            for r in rows
        )
    except OSError as error:
        raise BuildError(f"{folder}: {error.strerror}: no engine there; build it again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{folder}: damaged engine: {one_line(error)}; build it again") from None
    if hashlib.sha256(plan).hexdigest() != expected:
        raise BuildError(f"{folder}: damaged engine: {_PLAN} has changed; build it again")
    wanted = _nvidia(settings).compute_capability
    if built_for != wanted:
        raise BuildError(
            f"{folder}: built for compute capability {built_for}, the target says {wanted}; build "
            "it again"
        )
    return RtxEngine(plan, inputs, outputs, layers, facts)


def why_not_here(settings: EngineSettings) -> str | None:
    """Why this machine can't run the target's engines; None when it has the GPU and the library."""
    from deploy.on_device.cuda_memory import open_device_memory

    try:
        wanted = _nvidia(settings).compute_capability
        library()
        memory = open_device_memory()
        found, name = memory.compute_capability(), memory.device_name()
        memory.close()
    except (DeviceError, BuildError) as error:
        return str(error)
    if found != wanted:
        return f"the GPU here, {name}, has compute capability {found}, the target {wanted}"
    return None


class RtxEngine(Engine):
    """A built engine: what it is made of can be asked anywhere, running it takes the GPU."""

    def __init__(
        self,
        plan: bytes,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        layers: tuple[Layer, ...],
        facts: Mapping[str, str],
    ) -> None:
        super().__init__(inputs, outputs)
        self._plan = plan
        self._layers = layers
        self._facts = dict(facts)
        self._runner: Any = None

    def save(self, folder: Path) -> None:
        about = {
            "inputs": [_row(spec) for spec in self.inputs],
            "outputs": [_row(spec) for spec in self.outputs],
            "facts": self._facts,
            "sha256": hashlib.sha256(self._plan).hexdigest(),
        }
        write_aside(folder / _PLAN, self._plan)
        write_aside(folder / _LAYERS, json_bytes([asdict(layer) for layer in self._layers]))
        write_aside(folder / _ABOUT, json_bytes(about))

    def close(self) -> None:
        super().close()
        if self._runner is not None:
            self._runner.close()
        self._runner = None

    def properties(self) -> dict[str, str]:
        chip = self._facts["compute_capability"]
        return {"device": "GPU", "device_name": f"compute capability {chip}", **self._facts}

    def layers(self) -> tuple[Layer, ...]:
        return self._layers

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with _as_build_error():
            found: dict[str, np.ndarray] = self._on_gpu().run(feeds)
        return {spec.name: found[spec.name] for spec in self.outputs}

    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        with _as_build_error():
            call: Callable[[], None] = self._on_gpu().prepare(feeds)
        return call

    def _timed(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], float | None]:
        with _as_build_error():
            call: Callable[[], float | None] = self._on_gpu().timed(feeds)
        return call

    def _on_gpu(self) -> Any:
        """What runs it, made once; BuildError without the GPU it was built for."""
        if self._runner is None:
            from deploy.on_device.trt_run import Runner

            try:
                self._runner = Runner(library(), self._plan)
            except DeviceError as error:
                raise BuildError(
                    f"an engine for compute capability {self._facts['compute_capability']} needs "
                    f"that GPU to run, and {one_line(error)}; its layers can be read without"
                ) from None
        return self._runner


@contextmanager
def _as_build_error() -> Iterator[None]:
    try:
        yield
    except DeviceError as error:
        raise BuildError(f"TensorRT-RTX stopped: {one_line(error)}") from None


def _compile(
    trt: Any, log: Any, plan: BuildPlan, chip: str
) -> tuple[bytes | None, dict[str, tuple[int | None, ...]]]:
    """The engine, None when the compiler gives up, and the shape of each output."""
    builder = made(log, "builder", trt.Builder, log)
    # the parser holds the weights until the engine is built
    network, parser = read_network(trt, log, builder, plan)
    config, _ = builder_config(trt, builder, network, plan)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, chip), 0)
    serialized = builder.build_serialized_network(network, config)
    del parser
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    shapes = {t.name: tuple(size if size >= 0 else None for size in t.shape) for t in outputs}
    return (None if serialized is None else bytes(memoryview(serialized))), shapes


def _plan(model: Model, nvidia: Nvidia, precision: str) -> BuildPlan:
    sizes = profiles(model.inputs, nvidia.sizes)
    return BuildPlan(
        model=model.serialized,
        precision=precision,
        typing="strong",
        profiles={name: (s["min"], s["opt"], s["max"]) for name, s in sizes.items()},
        workspace_bytes=nvidia.workspace_bytes,
        tf32=precision != "fp32",
    )


def _nvidia(settings: EngineSettings) -> Nvidia:
    if settings.nvidia is None:
        raise BuildError(
            "the target has no [engine.nvidia]; TensorRT-RTX needs its compute_capability and "
            "versions, see `deploy targets rtx40`"
        )
    return settings.nvidia


def _chip(nvidia: Nvidia) -> str:
    """The compiler's name for a compute capability."""
    if nvidia.compute_capability not in _CHIPS:
        raise BuildError(
            f"compute_capability = {nvidia.compute_capability}; without a GPU TensorRT-RTX builds "
            f"for {', '.join(_CHIPS)} (GeForce RTX 30, 40, 50)"
        )
    return _CHIPS[nvidia.compute_capability]


def library() -> Any:
    """NVIDIA's module; MissingBackendError says what to install."""
    reasons = []
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reasons.append(str(error))
    raise MissingBackendError(f"TensorRT-RTX isn't installed ({reasons[0]}); {_INSTALL}")


def _check_version(trt: Any, nvidia: Nvidia) -> None:
    """Another release can't read the engine on the device."""
    found = ".".join(str(part) for part in library_version(trt)[:2])
    if found not in {version.rsplit(".", 1)[0] for version in nvidia.versions}:
        raise BuildError(
            f"{version_text(trt)} is installed here, the target's devices have "
            f"{', '.join(nvidia.versions)}; install that, or change versions in [engine.nvidia]"
        )


def _check_operators(model: Model) -> None:
    """Refuse custom operators here: the library looks for a plugin, and ends the process when it
    finds one on a machine without a GPU."""
    for graph in graphs(model.proto.graph):
        for node in graph.node:
            if node.domain not in _ONNX:
                raise BuildError(
                    f"{model.name}: node {node.name or node.output[0]!r} is {node.domain}."
                    f"{node.op_type}, and TensorRT-RTX takes no plugins without a GPU; leave "
                    "plugins = [] in [engine.nvidia], or export the model with ONNX's operators"
                )


def _row(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": str(spec.dtype), "shape": list(spec.shape)}
