"""ONNX Runtime on the CPU in float32: the numbers every engine is judged against."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import google.protobuf.message
import numpy as np

from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model, copy_proto
from deploy.errors import BuildError, one_line
from deploy.files import write_aside
from deploy.floats.widen import in_float32
from deploy.target import EngineSettings

_FILE = "model.onnx"
_FLOAT8 = 17  # TensorProto.FLOAT8E4M3FN


def build(
    model: Model, settings: EngineSettings | None = None, precision: str = "fp32"
) -> ReferenceEngine:
    """An engine that runs the model as it is written; BuildError when ONNX Runtime can't."""
    threads = settings.threads if settings else 0
    return ReferenceEngine(model, threads=threads)


def build_exact(model: Model) -> Engine:
    """The engine that parity trusts: the model in float32, whatever float type it is written in."""
    wide = in_float32(model)
    if wide is model:
        return ReferenceEngine(model)
    return _Widened(model, ReferenceEngine(wide))


def load(folder: Path, settings: EngineSettings, precision: str) -> ReferenceEngine:
    """An engine from a folder that `save` wrote; BuildError when the folder isn't one."""
    try:
        model = Model.load(folder / _FILE)
    except OSError as error:
        raise BuildError(f"{folder}: {error.strerror}: no engine there; build it again") from None
    except google.protobuf.message.DecodeError as error:
        raise BuildError(f"{folder}: damaged engine: {one_line(error)}; build it again") from None
    return build(model, settings, precision)


def build_observer(model: Model, tensors: Sequence[str], *, exact: bool = False) -> ReferenceEngine:
    """An engine that also returns the named inner tensors (not inputs), on one thread.

    exact: run every node as written, with the runtime's own fusions off.
    """
    proto = copy_proto(model.proto)
    known = {value.name for value in proto.graph.output}
    inner = {value.name: value for value in proto.graph.value_info}
    proto.graph.output.extend(
        inner[name] for name in tensors if name in inner and name not in known
    )
    return ReferenceEngine(model.derive(proto, ()), threads=1, exact=exact)


def build_in_order(model: Model) -> ReferenceEngine:
    """An engine on one thread that runs, of the nodes that are ready, the first of the graph."""
    return ReferenceEngine(model, threads=1, in_order=True)


def build_piece(model: Model) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Runs a piece of a graph as written, on one thread: its feeds are taken as they are."""
    session = _session(model, 1, True, False)
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return dict(zip(names, session.run(names, dict(feeds)), strict=True))
        # ONNX Runtime's exceptions share no base class of their own
        except Exception as error:
            raise BuildError(f"{model.name}: ONNX Runtime stopped: {one_line(error)}") from None

    return run


class ReferenceEngine(Engine):
    """An ONNX Runtime session; safe to run from several threads at once."""

    def __init__(
        self, model: Model, *, threads: int = 0, exact: bool = False, in_order: bool = False
    ) -> None:
        super().__init__(model.inputs, model.outputs)
        self._model = model
        self._session: Any = _session(model, threads, exact, in_order)

    def save(self, folder: Path) -> None:
        write_aside(folder / _FILE, self._model.serialized)

    def close(self) -> None:
        super().close()
        self._session = None

    def properties(self) -> dict[str, str]:
        import onnxruntime as ort

        return {"device": "CPU", "device_name": f"ONNX Runtime {ort.__version__} on the CPU"}

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [spec.name for spec in self.outputs]
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        # ONNX Runtime's exceptions share no base class of their own
        except Exception as error:
            raise BuildError(
                f"{self._model.name}: ONNX Runtime stopped: {one_line(error)}; check the sample's "
                "values and --shape"
            ) from None

    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        session, fixed = self._session, dict(feeds)
        return lambda: session.run(None, fixed)


class _Widened(Engine):
    """Takes the model's own types and answers in float32."""

    def __init__(self, model: Model, exact: ReferenceEngine) -> None:
        super().__init__(model.inputs, exact.outputs)
        self._exact = exact

    def save(self, folder: Path) -> None:
        self._exact.save(folder)

    def close(self) -> None:
        super().close()
        self._exact.close()

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._exact.run(self._cast(feeds))

    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        return self._exact.prepare(self._cast(feeds))

    def _cast(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {spec.name: feeds[spec.name].astype(spec.dtype) for spec in self._exact.inputs}


def _session(model: Model, threads: int, exact: bool, in_order: bool) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    disabled: list[str] = []
    if in_order:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if any(weight.data_type == _FLOAT8 for weight in model.proto.graph.initializer):
        # ONNX Runtime 1.31 takes any Q/DQ for integers: it makes a QLinearConv, which knows no
        # float8, and looks for the integers' limits
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        disabled = ["ClipQuantRewrite", "ReluQuantRewrite"]
    if exact:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(
            model.serialized,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=disabled,
        )
    # ONNX Runtime's exceptions share no base class of their own
    except Exception as error:
        raise BuildError(
            f"{model.name}: the float32 reference (ONNX Runtime) can't run it: {one_line(error)}; "
            "without a reference nothing can be proven, so export it with operators it has"
        ) from None


def cores() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
