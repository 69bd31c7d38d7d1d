"""The plugin registry, loggers and the module's functions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from doubles.operators import numbers
from doubles.part import Part

# how a file says that it stands for a plugin library: see `plugin_library`
LIBRARY = b"plugin library of the double\n"


def plugin_library(path: Path, *ops: str, version: str = "1", listed: bool = False) -> Path:
    """Write a file that `ctypes.CDLL` takes for a library with plugins of these ops, as long as a
    double is installed. listed: it exports getCreators, for load_library, instead of registering
    its creators when it is loaded."""
    about = {"ops": list(ops), "version": version, "listed": listed}
    path.write_bytes(LIBRARY + json.dumps(about).encode())
    return path


class IPluginCreator(Part):
    plugin_namespace = ""

    def _setup(self, name: str = "", version: str = "1") -> None:
        self._name, self._plugin_version = name, version

    name: Any = property(lambda self: self._name, lambda self, v: setattr(self, "_name", v))
    plugin_version: Any = property(
        lambda self: self._plugin_version, lambda self, v: setattr(self, "_plugin_version", v)
    )


class IPluginCreatorV3One(IPluginCreator):
    pass


class IPluginRegistry(Part):
    error_recorder = None
    parent_search_enabled = True

    def _setup(self) -> None:
        self._creators: list[Any] = []

    plugin_creator_list: Any = property(lambda self: list(self._creators))
    all_creators: Any = property(lambda self: list(self._creators))

    def _names(self) -> list[str]:
        return [creator._name for creator in self._creators]

    def _find(self, node: Any) -> str | None:
        """The LayerType of an ONNX node that a creator takes; its version is an attribute."""
        given = {a.name: a.s.decode() for a in node.attribute if a.type == 3}
        version = given.get("plugin_version", "1")
        for creator in self._creators:
            if (creator._name, creator._plugin_version) == (node.op_type, version):
                return "PLUGIN_V2" if numbers(self._version)[0] < 10 else "PLUGIN_V3"
        return None

    def _register(self, about: dict[str, Any]) -> None:
        new = "IPluginCreatorV3One" if "IPluginCreatorV3One" in self._own else "IPluginCreator"
        for op in about["ops"]:
            if op not in self._names():
                self._creators.append(self._make(new, op, about["version"]))

    def register_creator(self, creator: Any, plugin_namespace: str = "") -> bool:
        self._creators.append(creator)
        return True

    def deregister_creator(self, creator: Any) -> bool:
        self._creators.remove(creator)
        return True

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        wanted = (type, version)
        return next((c for c in self._creators if (c._name, c._plugin_version) == wanted), None)

    get_plugin_creator = get_creator

    def load_library(self, plugin_path: str) -> Any:
        content = Path(plugin_path).read_bytes()
        if not content.startswith(LIBRARY):
            return None
        about = json.loads(content[len(LIBRARY) :])
        if not about["listed"]:
            return None  # it has no getCreators
        self._register(about)
        return about

    def deregister_library(self, handle: Any) -> None:
        for op in handle["ops"]:
            self._creators = [c for c in self._creators if c._name != op]


class ILogger(Part):
    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError("Tried to call pure virtual function ILogger::log")


class Logger(Part):
    def _setup(self, min_severity: Any = None) -> None:
        self._least = min_severity or self._value("ILogger.Severity", "WARNING")

    min_severity: Any = property(
        lambda self: self._least, lambda self, severity: setattr(self, "_least", severity)
    )

    def log(self, severity: Any, msg: str) -> None:
        if int(severity) <= int(self._least):
            print(f"[TRT] [{severity.__dict__['name'][0]}] {msg}", file=sys.stderr)


class Dims(Part):
    MAX_DIMS: Any = property(lambda self: 8)

    def _setup(self, shape: Any = ()) -> None:
        self._sizes = tuple(int(size) for size in shape)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, arg0: Any) -> Any:
        return self._sizes[arg0]

    def __eq__(self, other: object) -> bool:
        sizes: Any = other
        return isinstance(other, (tuple, list, Part)) and tuple(sizes) == self._sizes

    def __hash__(self) -> int:
        return hash(self._sizes)

    def __repr__(self) -> str:
        return str(self._sizes)


class functions:  # noqa: N801, holds what isn't in a class
    """Functions of the module; the first argument is the module."""

    def get_plugin_registry(trt: Any) -> Any:  # noqa: N805
        return trt._state["registry"]

    def init_libnvinfer_plugins(trt: Any, logger: Any, namespace: str) -> bool:  # noqa: N805
        return True

    def volume(trt: Any, iterable: Any) -> int:  # noqa: N805
        return int(np.prod(list(iterable), dtype=np.int64))

    def nptype(trt: Any, trt_type: Any) -> Any:  # noqa: N805
        names = {"FLOAT": "float32", "HALF": "float16"}
        name = trt_type.__dict__["name"]
        if name in ("BF16", "FP8", "INT4", "FP4", "E8M0"):
            raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
        return np.dtype(names.get(name, name.lower())).type
