"""The bundle's engine in memory: its ports, and requests that run it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from deploy.errors import BuildError, BundleError, MissingBackendError, one_line
from deploy.serving.bundle_check import Checked
from deploy.serving.datatypes import of_engine
from deploy.serving.ports import Port

# what may be done with rows: merge requests into one run, run a request's rows one by one, or
# neither
Rows = Literal["merge", "split", "fixed"]


class Compiled:
    """A compiled model. `runner` gives independent requests, one per thread."""

    def __init__(self, checked: Checked, *, threads: int = 0, streams: int = 0) -> None:
        core = _core(checked)
        ir = _graph(core, checked)
        self.inputs = _ports(ir.inputs, checked, "inputs")
        self.outputs = _ports(ir.outputs, checked, "outputs")
        self.rows = _rows(self.inputs, self.outputs)
        device = str(checked.settings["engine"].get("device", "CPU"))
        present = {name.split(".")[0] for name in core.available_devices}
        self.device = device if device in present else "CPU"
        self._model = _compiled(core, ir, checked, self.device, _config(checked, threads, streams))
        self.streams = int(self._model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.stateful = bool(self._model.create_infer_request().query_state())
        if self.stateful:
            self.rows = "fixed"

    def runner(self) -> Runner:
        """A request of its own; two of them may run at the same time."""
        return Runner(self._model.create_infer_request(), self.inputs, self.outputs, self.stateful)


class Runner:
    """One infer request: not to be used by two threads at a time."""

    def __init__(
        self, request: Any, inputs: Sequence[Port], outputs: Sequence[Port], stateful: bool
    ) -> None:
        import openvino as ov

        self._request = request
        self._inputs = inputs
        self._outputs = outputs
        self._stateful = stateful
        self._tensor = ov.Tensor
        self._buffers: dict[str, np.ndarray] = {}
        self._bf16 = ov.Type.bf16

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name, in arrays of their own; the caller waits without the GIL."""
        if self._stateful:
            self._request.reset_state()
        held = [self._set(port, feeds[port.name]) for port in self._inputs]
        self._request.start_async()
        self._request.wait()
        del held
        found = {}
        for port in self._outputs:
            x = self._request.get_tensor(port.name).data
            # bfloat16 comes as float16
            found[port.name] = np.array(x.view(port.kind.dtype) if port.bf16 else x)
        return found

    def _set(self, port: Port, x: np.ndarray) -> Any:
        if not x.flags.carray:
            x = self._copied(port.name, x)
        if port.bf16:
            tensor = self._tensor(x, x.shape, self._bf16)
        else:
            tensor = self._tensor(x, shared_memory=True)
        self._request.set_tensor(port.name, tensor)
        return tensor

    def _copied(self, name: str, x: np.ndarray) -> np.ndarray:
        """In a buffer of ours: OpenVINO takes what is writable, aligned and in one piece."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != x.shape:
            buffer = self._buffers[name] = np.empty(x.shape, x.dtype)
        buffer[...] = x
        return buffer


def _graph(core: Any, checked: Checked) -> Any:
    """The graph from memory: OpenVINO would map the file of weights, and a file that is cut short
    while it is mapped ends the process."""
    xml, weights = (checked.read(f"engine/model.{kind}") for kind in ("xml", "bin"))
    try:
        return core.read_model(xml, weights)
    except RuntimeError as error:
        raise BundleError(
            f"{checked.folder}: OpenVINO can't read the engine: {one_line(error)}; build the "
            "bundle again"
        ) from None


def _compiled(core: Any, ir: Any, checked: Checked, device: str, config: dict[str, Any]) -> Any:
    try:
        return core.compile_model(ir, device, config)
    except RuntimeError as error:
        raise BuildError(
            f"{checked.folder}: OpenVINO can't compile for {device}: {one_line(error)}; build the "
            "bundle on a machine like this one"
        ) from None


def _ports(found: Sequence[Any], checked: Checked, what: str) -> tuple[Port, ...]:
    by_name = {name: port for port in found for name in port.get_names()}
    rows = checked.described.get(what)
    names = [str(row.get("name")) if isinstance(row, dict) else "" for row in rows or []]
    if not names or len(names) != len(found) or not set(names) <= set(by_name):
        raise BundleError(
            f"{checked.folder}: engine.json lists the {what} {names}, the engine has "
            f"{sorted(by_name)}; build the bundle again"
        )
    return tuple(_port(name, by_name[name], what, checked) for name in names)


def _port(name: str, port: Any, what: str, checked: Checked) -> Port:
    kind = of_engine(port.get_element_type().get_type_name())
    if kind is None:
        raise BundleError(
            f"{checked.folder}: {what[:-1]} {name!r} is {port.get_element_type()}; V2 has no such "
            "tensors, so the model can't be served"
        )
    dims = port.get_partial_shape()
    if dims.rank.is_dynamic:
        raise BundleError(
            f"{checked.folder}: {what[:-1]} {name!r} has no fixed number of dimensions; give "
            "--shape when building"
        )
    return Port(name, kind, tuple(None if d.is_dynamic else d.get_length() for d in dims))


def _rows(inputs: Sequence[Port], outputs: Sequence[Port]) -> Rows:
    first = {port.shape[0] if port.shape else 0 for port in (*inputs, *outputs)}
    if first == {None}:
        return "merge"
    return "split" if first == {1} else "fixed"


def _config(checked: Checked, threads: int, streams: int) -> dict[str, Any]:
    """As the engine was judged, but for how many run at a time."""
    engine = checked.settings["engine"]
    config: dict[str, Any] = {}
    hints = engine.get("inference_precision")
    hint = hints.get(checked.precision, "") if isinstance(hints, dict) else ""
    if hint:
        config["INFERENCE_PRECISION_HINT"] = str(hint)
    group = _count(checked, "dynamic_group")
    if group:
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group
    threads = threads or _count(checked, "threads")
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    streams = streams or _count(checked, "streams")
    if streams:
        config["NUM_STREAMS"] = streams
    else:
        config["PERFORMANCE_HINT"] = "THROUGHPUT"
    return config


def _count(checked: Checked, key: str) -> int:
    value = checked.settings["engine"].get(key) or 0
    if not isinstance(value, int) or value < 0:
        raise BundleError(
            f"{checked.folder}: settings.json has {key} = {str(value)[:40]!r}; build the bundle "
            "again"
        )
    return value


_LOADING = threading.Lock()
# by the libraries' content: a reload may bring another kernel of the same name
_CORES: dict[tuple[str, ...], Any] = {}


def _core(checked: Checked) -> Any:
    """One core for the process, and one for every set of plugin libraries."""
    try:
        import openvino as ov
    except ImportError as error:
        raise MissingBackendError(
            f"OpenVINO isn't installed ({error}); pip install openvino"
        ) from None
    key = tuple(checked.hashes[f"engine/{path.name}"] for path in checked.libraries)
    with _LOADING:
        if key not in _CORES:
            core = ov.Core()
            for library in checked.libraries:
                try:
                    core.add_extension(str(library))
                except RuntimeError as error:
                    raise BuildError(
                        f"{library.name}: OpenVINO can't load this plugin: {one_line(error)}; it "
                        "fits the OpenVINO it was compiled with, build the bundle again"
                    ) from None
            _CORES[key] = core
        return _CORES[key]
