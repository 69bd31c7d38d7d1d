"""Runtime, engine, context and inspector: an engine's bytes run by ONNX Runtime on a `Gpu`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import helper

from doubles.compile_network import MAGIC
from doubles.operators import numbers
from doubles.part import Part
from doubles.simulate import session

_ARRAYS = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "UINT8": "uint8"}
_ARRAYS.update({"INT32": "int32", "INT64": "int64", "BOOL": "bool"})


class Runtime(Part):
    error_recorder = None
    gpu_allocator = None
    max_threads = 1
    engine_host_code_allowed = False
    DLA_core = -1
    logger: Any = property(lambda self: self._logger)
    num_DLA_cores: Any = property(lambda self: self._state["gpu"].dla_cores)  # noqa: N815

    def _setup(self, logger: Any) -> None:
        self._logger = logger
        gpu = self._state["gpu"]
        if not gpu.devices:
            self._error("CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def _error(self, text: str) -> None:
        self._logger.log(self._value("ILogger.Severity", "ERROR"), text)

    def get_plugin_registry(self) -> Any:
        return self._state["registry"]

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        content = bytes(serialized_engine)
        head, reason = self._read(content)
        if head is None:
            self._error(reason)
            return None
        model = content[content.index(b"\n", len(MAGIC)) + 1 :]
        return self._make("ICudaEngine", self, head, model, content)

    def _read(self, content: bytes) -> tuple[dict[str, Any] | None, str]:
        """What the bytes say of themselves, or why they can't be used here."""
        if not content.startswith(MAGIC):
            return None, "Error Code 1: Serialization (magicTag does not match)"
        head = json.loads(content[len(MAGIC) : content.index(b"\n", len(MAGIC))])
        gpu = self._state["gpu"]
        older = head["any_version"] and numbers(head["version"])[0] <= numbers(self._version)[0]
        if head["version"] != self._version and not older:
            return None, (
                "Error Code 1: Serialization (Serialization assertion stdVersionRead == "
                "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: "
                f"{self._version}, Serialized Engine Version: {head['version']})"
            )
        if head["any_version"] and not self._set_to("engine_host_code_allowed"):
            return None, "Error Code 1: the plan has a lean runtime; set engine_host_code_allowed"
        if head["sm"] != gpu.sm and not (head["any_sm"] and gpu.sm >= 80):
            return None, (
                "Error Code 6: The engine plan file is generated on an incompatible device, "
                f"expecting compute {_dotted(gpu.sm)} got compute {_dotted(head['sm'])}, please "
                "rebuild."
            )
        core = self._set_to("DLA_core", -1)
        if head["dla"] >= 0 and core not in range(gpu.dla_cores):
            return None, f"Error Code 1: the engine needs a DLA core; DLA_core is {core}"
        known = self._state["registry"]._names()
        missing = [op for op in head["plugins"] if op not in known]
        if missing:
            return None, f"Error Code 1: IPluginRegistry has no creator of plugin {missing[0]}"
        return head, ""


def _dotted(sm: int) -> str:
    return f"{sm // 10}.{sm % 10}"


class ICudaEngine(Part):
    error_recorder = None
    num_optimization_profiles: Any = property(lambda self: 1)
    num_io_tensors: Any = property(lambda self: len(self._tensors))
    num_layers: Any = property(lambda self: len(self._head["layers"]))
    device_memory_size: Any = property(lambda self: 1 << 20)
    device_memory_size_v2: Any = property(lambda self: 1 << 20)
    name: Any = property(lambda self: "Unnamed Network 0")
    refittable: Any = property(lambda self: False)

    def _setup(self, runtime: Any, head: dict[str, Any], model: bytes, content: bytes) -> None:
        self._runtime, self._head, self._content = runtime, head, content
        self._tensors = {tensor["name"]: tensor for tensor in head["tensors"]}
        self._proto = onnx.load_model_from_string(model)
        self._session = session(self._proto)

    profiling_verbosity: Any = property(
        lambda self: self._value("ProfilingVerbosity", self._head["verbosity"])
    )

    def _of(self, name: str) -> dict[str, Any]:
        if name not in self._tensors:
            self._runtime._error(
                f"Error Code 3: tensor name {name!r} does not correspond to an I/O tensor"
            )
        return dict(self._tensors.get(name, {"mode": "NONE", "type": "FLOAT", "shape": [-1]}))

    def get_tensor_name(self, index: int) -> str:
        return str(list(self._tensors)[index])

    def get_tensor_mode(self, name: str) -> Any:
        return self._value("TensorIOMode", self._of(name)["mode"])

    def get_tensor_dtype(self, name: str) -> Any:
        return self._value("DataType", self._of(name)["type"])

    def get_tensor_shape(self, name: str) -> Any:
        return self._make("Dims", self._of(name)["shape"])

    def get_tensor_location(self, name: str) -> Any:
        return self._value("TensorLocation", "DEVICE")

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        return self._value("TensorFormat", "LINEAR")

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        shapes = self._head["profile"].get(name, [self._of(name)["shape"]] * 3)
        return [self._make("Dims", list(shape)) for shape in shapes]

    def serialize(self) -> Any:
        return self._make("IHostMemory", self._content)

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        return self._make("IExecutionContext", self)

    def create_engine_inspector(self) -> Any:
        return self._make("EngineInspector", self)


class IExecutionContext(Part):
    error_recorder = None
    debug_sync = False
    enqueue_emits_profile = True
    profiler = None
    name = ""
    engine: Any = property(lambda self: self._engine)
    active_optimization_profile: Any = property(lambda self: 0, lambda self, index: None)
    all_binding_shapes_specified: Any = property(lambda self: not self._unset())

    def _setup(self, engine: Any) -> None:
        self._engine = engine
        self._shapes = {
            name: tuple(t["shape"]) for name, t in engine._tensors.items() if t["mode"] == "INPUT"
        }
        self._addresses: dict[str, int] = {}
        self._inferred: dict[Any, dict[str, tuple[int, ...]]] = {}

    def _error(self, text: str) -> bool:
        self._engine._runtime._error(text)
        return False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        return profile_index == 0

    def set_input_shape(self, name: str, shape: Any) -> bool:
        tensor = self._engine._tensors.get(name, {"mode": "NONE"})
        if tensor["mode"] != "INPUT":
            return self._error(f"Error Code 3: {name!r} is no input")
        wanted = tuple(int(size) for size in shape)
        low, _, high = self._engine._head["profile"].get(name, [tensor["shape"]] * 3)
        inside = len(wanted) == len(low) and all(a <= b <= c for a, b, c in zip(low, wanted, high))  # noqa: B905
        if not inside:
            return self._error(
                f"Error Code 3: API Usage Error (setInputShape: {name} {list(wanted)} is outside "
                f"of {list(low)}..{list(high)} of optimization profile 0)"
            )
        self._shapes[name] = wanted
        return True

    def get_tensor_shape(self, name: str) -> Any:
        if name in self._shapes:
            return self._make("Dims", list(self._shapes[name]))
        known = self._engine._of(name)["shape"]
        if self._unset():
            return self._make("Dims", known)
        return self._make("Dims", list(self._outputs()[name]))

    def infer_shapes(self) -> list[str]:
        return self._unset()

    def _unset(self) -> list[str]:
        return [name for name, shape in self._shapes.items() if -1 in shape]

    def _outputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs for the shapes set, found by running zeros."""
        key = tuple(sorted(self._shapes.items()))
        if key not in self._inferred:
            zeros = {n: np.zeros(s, self._array_type(n)) for n, s in self._shapes.items()}
            self._inferred[key] = {n: a.shape for n, a in self._results(zeros).items()}
        return self._inferred[key]

    def _array_type(self, name: str) -> Any:
        return np.dtype(_ARRAYS[self._engine._tensors[name]["type"]])

    def _results(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name; ONNX Runtime gets its own types, TensorRT's come back."""
        tensors, run = self._engine._tensors, self._engine._session
        kinds = {i.name: i.type.tensor_type.elem_type for i in self._engine._proto.graph.input}
        given = {}
        for name, array in feeds.items():
            source = tensors[name]["source"]
            given[source] = array.astype(helper.tensor_dtype_to_np_dtype(kinds[source]))
        names = [n for n, t in tensors.items() if t["mode"] == "OUTPUT"]
        arrays = run.run([tensors[n]["source"] for n in names], given)
        return {n: np.asarray(a).astype(self._array_type(n)) for n, a in zip(names, arrays)}  # noqa: B905

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._tensors:
            return self._error(f"Error Code 3: {name!r} is no input or output")
        if int(memory) % 256:
            return self._error(f"Error Code 3: address of {name} isn't aligned to 256 bytes")
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def execute_async_v3(self, stream_handle: int) -> bool:
        missing = self._unset()
        if missing:
            return self._error(f"Error Code 3: the shape of input {missing[0]} was not set")
        unset = [name for name in self._engine._tensors if name not in self._addresses]
        if unset:
            return self._error(f"Error Code 3: Address is not set for tensor {unset[0]}")
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        gpu = self._engine._runtime._state["gpu"]
        for name, shape in {**shapes, **self._outputs()}.items():
            count = int(np.prod(shape, dtype=np.int64)) * self._array_type(name).itemsize
            gpu.at(addresses[name], count)
        gpu.put(int(stream_handle), lambda: self._execute(gpu, addresses, shapes))
        return True

    def _execute(self, gpu: Any, addresses: dict[str, int], shapes: dict[str, Any]) -> None:
        feeds = {n: gpu.read(addresses[n], s, self._array_type(n)) for n, s in shapes.items()}
        for name, array in self._results(feeds).items():
            gpu.write(addresses[name], array)
        gpu.passed([layer["TacticName"] for layer in self._engine._head["layers"]])


class EngineInspector(Part):
    """get_engine_information as JSON: "Bindings" up to 10.x, "I/O Tensors" from 11 on."""

    error_recorder = None

    def _setup(self, engine: Any) -> None:
        self._engine, self._context = engine, None

    execution_context: Any = property(
        lambda self: self._context, lambda self, context: setattr(self, "_context", context)
    )

    def get_engine_information(self, format: Any) -> str:
        head = self._engine._head
        if head["verbosity"] == "NONE":
            return "The layer information is not available: built with verbosity NONE\n"
        rows = [self._row(layer) for layer in head["layers"]]
        key = "Bindings" if numbers(self._version)[0] < 11 else "I/O Tensors"
        if format.__dict__["name"] != "JSON":
            return "\n".join(str(row) for row in rows)
        return json.dumps({"Layers": rows, key: list(self._engine._tensors)})

    def get_layer_information(self, layer_index: int, format: Any) -> str:
        return json.dumps(self._row(self._engine._head["layers"][layer_index]))

    def _row(self, layer: dict[str, Any]) -> Any:
        if self._engine._head["verbosity"] != "DETAILED":
            return layer["Name"]
        row = dict(layer)
        if numbers(self._version) < (8, 6):
            row.pop("Metadata")  # 8.6 brought it
        return row
