"""OpenVINO: from ONNX (float or Q/DQ) to an IR on disk and an engine that runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deploy.artifacts.engine import Engine, Layer
from deploy.artifacts.model import Model, TensorSpec
from deploy.errors import BuildError, MissingBackendError, one_line
from deploy.files import json_bytes, write_aside
from deploy.plugin.libraries import Library, compiled_for, read, stored
from deploy.target import EngineSettings

_XML = "model.xml"
_IO = "engine.json"
# where in OpenVINO's own sources a message came from, and the node's whole signature
_POSITION = re.compile(
    r"(Exception from|Check '.*?' failed at) \S+:\d+: ?|FrontEnd API failed with "
    r"|While validating node '[^']*' with friendly_name '[^']*': ?"
)
# names OpenVINO numbers as it goes: they'd differ with whatever ran before in the process
_NUMBERED = re.compile(r"(?<=^Constant)_\d+|_\d+$")


def build(model: Model, settings: EngineSettings, precision: str) -> OpenVinoEngine:
    """Compile a model; BuildError when OpenVINO refuses it."""
    libraries = compiled_for(model.proto, model.name)
    try:
        ir = _core(libraries).read_model(model.serialized)
        _fix_batch(ir, settings)
        _steady_names(ir, model)
    except RuntimeError as error:
        raise BuildError(
            f"{model.name}: OpenVINO can't read the graph: {_reason(error)}; the operator named "
            "there has to be exported differently"
        ) from None
    # OpenVINO drops an input that nothing reads
    read = {name for port in ir.inputs for name in port.get_names()}
    inputs = tuple(
        _spec_of(ir.input(spec.name), spec) for spec in model.inputs if spec.name in read
    )
    outputs = tuple(_spec_of(ir.output(spec.name), spec) for spec in model.outputs)
    return OpenVinoEngine(ir, inputs, outputs, settings, precision, libraries)


def load(folder: Path, settings: EngineSettings, precision: str) -> OpenVinoEngine:
    """An engine from the IR that `save` wrote; BuildError when the folder isn't one."""
    try:
        described = json.loads((folder / _IO).read_text(encoding="utf-8"))
        inputs = tuple(_spec_from(row) for row in described["inputs"])
        outputs = tuple(_spec_from(row) for row in described["outputs"])
        libraries = read(folder, described.get("libraries", []))
        ir = _core(libraries).read_model(folder / _XML)
    except OSError as error:
        raise BuildError(f"{folder}: {error.strerror}: no engine there; build it again") from None
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{folder}: damaged engine: {_reason(error)}; build it again") from None
    return OpenVinoEngine(ir, inputs, outputs, settings, precision, libraries)


class OpenVinoEngine(Engine):
    """A compiled OpenVINO model on the target's device, or on the CPU where that is absent.

    libraries: the plugin kernels that the model's own operators need.
    """

    def __init__(
        self,
        ir: Any,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        settings: EngineSettings,
        precision: str,
        libraries: tuple[Library, ...] = (),
    ) -> None:
        super().__init__(inputs, outputs)
        self._ir = ir
        self._libraries = libraries
        self._precision = precision
        self._device = _available(settings.device)
        try:
            self._compiled: Any = _core(libraries).compile_model(
                ir, self._device, _config(settings, precision)
            )
        except RuntimeError as error:
            raise BuildError(
                f"OpenVINO can't compile for {self._device}: {_reason(error)}; try --fp32, or "
                "another target"
            ) from None
        self._request: Any = self._compiled.create_infer_request()

    def save(self, folder: Path) -> None:
        import openvino as ov

        half = self._precision == "fp16"
        try:
            ov.save_model(self._ir, folder / _XML, compress_to_fp16=half)
        except RuntimeError as error:
            raise BuildError(
                f"{folder}: OpenVINO can't write the engine ({_reason(error)}); free some space "
                "and run the same command again, finished stages are kept"
            ) from None
        rows: dict[str, Any] = {
            "inputs": [_row(spec) for spec in self.inputs],
            "outputs": [_row(spec) for spec in self.outputs],
        }
        if self._libraries:
            rows["libraries"] = stored(self._libraries, folder)
        write_aside(folder / _IO, json_bytes(rows))

    def close(self) -> None:
        super().close()
        self._request = self._compiled = self._ir = None

    def properties(self) -> dict[str, str]:
        wanted = {
            "inference_precision": "INFERENCE_PRECISION_HINT",
            "threads": "INFERENCE_NUM_THREADS",
            "streams": "NUM_STREAMS",
            "performance_hint": "PERFORMANCE_HINT",
        }
        known = {str(p) for p in self._compiled.get_property("SUPPORTED_PROPERTIES")}
        found = {
            ours: _property_text(self._compiled.get_property(theirs))
            for ours, theirs in wanted.items()
            if theirs in known
        }
        name = str(_core().get_property(self._device, "FULL_DEVICE_NAME"))
        return {"device": self._device, "device_name": name.strip(), **found}

    def layers(self) -> tuple[Layer, ...]:
        found = []
        known = {node.get_friendly_name() for node in self._ir.get_ordered_ops()}
        for index, node in enumerate(self._compiled.get_runtime_model().get_ordered_ops()):
            info = node.get_rt_info()
            kind = _info(info, "layerType")
            if kind in ("Const", "Input", "Output"):
                continue
            origin = tuple(n for n in _info(info, "originalLayersNames").split(",") if n in known)
            found.append(
                Layer(
                    _steady(node.get_friendly_name(), index, known),
                    kind,
                    _info(info, "runtimePrecision"),
                    _info(info, "primitiveType"),
                    origin,
                )
            )
        return tuple(found)

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            results = self._request.infer(dict(feeds), share_inputs=True)
        except RuntimeError as error:
            raise BuildError(f"OpenVINO stopped: {_reason(error)}; check the feeds") from None
        return {spec.name: np.array(results[spec.name]) for spec in self.outputs}

    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        import openvino as ov

        request = self._compiled.create_infer_request()
        for name, x in feeds.items():
            request.set_tensor(name, ov.Tensor(np.array(x, order="C")))
        return lambda: request.infer(share_outputs=True)

    def _run_many(self, feeds: Mapping[str, np.ndarray], runs: int) -> None:
        import openvino as ov

        queue = ov.AsyncInferQueue(self._compiled)
        for _ in range(runs):
            queue.start_async(dict(feeds), share_inputs=True)
        queue.wait_all()


def _reason(error: BaseException) -> str:
    """OpenVINO's message without its own source positions."""
    return one_line(_POSITION.sub("", one_line(error, 5000)))


_SHARED_CORE: list[Any] = []
# by the libraries' content: one core never knows two kernels of one operator
_EXTENDED_CORES: dict[tuple[str, ...], Any] = {}


def _core(libraries: tuple[Library, ...] = ()) -> Any:
    """One OpenVINO core for the process: making one loads every device plugin.

    Models with operators of their own get one that has their kernels.
    """
    if not _SHARED_CORE:
        try:
            import openvino as ov
        except ImportError as error:
            raise MissingBackendError(
                f"OpenVINO isn't installed ({error}); pip install openvino"
            ) from None
        _SHARED_CORE.append(ov.Core())
    if not libraries:
        return _SHARED_CORE[0]
    key = tuple(library.sha256 for library in libraries)
    if key not in _EXTENDED_CORES:
        _EXTENDED_CORES[key] = _extended(type(_SHARED_CORE[0])(), libraries)
    return _EXTENDED_CORES[key]


def _extended(core: Any, libraries: tuple[Library, ...]) -> Any:
    for library in libraries:
        try:
            core.add_extension(str(library.file))
        except RuntimeError as error:
            raise BuildError(
                f"{library.file.name}: OpenVINO can't load this plugin: {_reason(error)}; it fits "
                "the OpenVINO it was compiled with, build the engine again"
            ) from None
    return core


def _available(device: str) -> str:
    present = _core().available_devices
    return device if any(name.split(".")[0] == device for name in present) else "CPU"


def _config(settings: EngineSettings, precision: str) -> dict[str, Any]:
    config: dict[str, Any] = {"PERFORMANCE_HINT": settings.performance_hint}
    hint = settings.inference_precision.get(precision, "")  # type: ignore[call-overload]
    if hint:
        config["INFERENCE_PRECISION_HINT"] = hint
    if settings.threads:
        config["INFERENCE_NUM_THREADS"] = settings.threads
    if settings.streams:
        config["NUM_STREAMS"] = settings.streams
    if settings.dynamic_group:
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = settings.dynamic_group
    if settings.cache_dir:
        config["CACHE_DIR"] = settings.cache_dir
    return config


def _fix_batch(ir: Any, settings: EngineSettings) -> None:
    """Give every input whose first dimension is free the target's batch size."""
    if settings.batch == "dynamic":
        return
    shapes = {}
    for port in ir.inputs:
        shape = port.get_partial_shape()
        if len(shape) and shape[0].is_dynamic:
            shape[0] = settings.batch
        shapes[port] = shape
    ir.reshape(shapes)


def _steady_names(ir: Any, model: Model) -> None:
    """Number generated names by position, so that the same model gives the same IR file."""
    graph = model.proto.graph
    own = {name for node in graph.node for name in (node.name, *node.input, *node.output)}
    for index, node in enumerate(ir.get_ordered_ops()):
        node.set_friendly_name(_steady(node.get_friendly_name(), index, own))


def _steady(name: str, index: int, own: set[str]) -> str:
    """The name, its number replaced by the position unless the model itself gave it."""
    if name in own or not _NUMBERED.search(name):
        return name
    return f"{_NUMBERED.sub('', name)}_{index}"


def _spec_of(port: Any, spec: TensorSpec) -> TensorSpec:
    dims = [None if d.is_dynamic else d.get_length() for d in port.get_partial_shape()]
    return TensorSpec(spec.name, np.dtype(port.get_element_type().to_dtype()), tuple(dims))


def _row(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": str(spec.dtype), "shape": list(spec.shape)}


def _spec_from(row: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(row["name"], np.dtype(row["dtype"]), tuple(row["shape"]))


def _info(info: Any, key: str) -> str:
    return str(info[key].value) if key in info else ""


def _property_text(value: Any) -> str:
    """`<Type: 'bfloat16'>` as bf16, an enum as its name, the rest as it prints."""
    text = getattr(value, "name", None) or str(value)
    found = re.search(r"'(\w+)'", text)
    return (found.group(1) if found else text).replace("float", "f")
