"""TensorRT's Python module: found, its version, its log, its plugins."""

from __future__ import annotations

import ctypes
import importlib
import re
from collections.abc import Iterable
from typing import Any

from deploy.on_device.device_error import (
    UNIMPORTABLE,
    DeviceError,
    MissingLibraryError,
    NoDeviceError,
)
from deploy.on_device.running_library import promote_symbols

_INSTALL = {
    "tensorrt": "a Jetson has it with JetPack (apt install python3-libnvinfer), for a PC: pip "
    "install tensorrt",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings",
}
# NVIDIA's own package, and the wheels of the package index
_MODULES = {"tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
# what a plugin library exports for the registry to ask; others announce themselves when loaded
_CREATOR_LISTS = ("getCreators", "getPluginCreators")


def load_library(name: str) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`; MissingLibraryError says what to install."""
    reasons = []
    for module in _MODULES.get(name, (name,)):
        try:
            return importlib.import_module(module)
        except UNIMPORTABLE as error:
            reasons.append(str(error))
    raise MissingLibraryError(
        "{} can't be imported ({}); {}".format(name, reasons[0], _INSTALL.get(name, "install it"))
    )


def library_version(trt: Any) -> tuple[int, int, int]:
    """(8, 5, 2) for "8.5.2.2"."""
    parts = [int(part) for part in re.findall(r"\d+", str(trt.__version__))]
    major, minor, patch = [*parts, 0, 0, 0][:3]
    return major, minor, patch


def version_text(trt: Any) -> str:
    """Library and version as messages write them: "TensorRT 8.5.2"."""
    title = "TensorRT-RTX" if "rtx" in trt.__name__ else "TensorRT"
    return "{} {}.{}.{}".format(title, *library_version(trt))


def chooses_types(trt: Any) -> bool:
    """Whether builder flags may choose types (weak typing): up to 10.x."""
    return hasattr(trt.BuilderFlag, "INT8")


def LogLines(trt: Any) -> Any:  # noqa: N802, reads like the class it makes
    """A trt.ILogger that prints nothing; its `lines` are (severity, text), "WARNING" and so on."""

    class _Lines(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            self.lines.append((severity.name, str(msg)))

    return _Lines()


def logged(log: Any, *severities: str) -> list[str]:
    """What a log holds of these severities, each text once, in order."""
    return list(dict.fromkeys(text for severity, text in log.lines if severity in severities))


def last_errors(log: Any, otherwise: str) -> str:
    """The last errors of a log on one line, for the end of a message."""
    found = logged(log, "INTERNAL_ERROR", "ERROR")[-3:]
    return " ".join(" ".join(found).split()) or otherwise


def made(log: Any, what: str, factory: Any, *arguments: Any) -> Any:
    """What a TensorRT class gives; NoDeviceError where it refuses, as it does without a GPU."""
    try:
        return factory(*arguments)
    # pybind11 says this of a factory that returned nothing
    except TypeError as error:
        reason = last_errors(log, str(error))
        raise NoDeviceError(
            f"TensorRT can't make its {what}: {reason}; it needs an NVIDIA GPU with a driver for "
            "its CUDA version"
        ) from None


def load_plugin_libraries(trt: Any, log: Any, paths: Iterable[str]) -> None:
    """NVIDIA's plugins and those of the shared objects, in the global registry.

    DeviceError when a library can't be loaded.
    """
    trt.init_libnvinfer_plugins(log, "")
    paths = list(paths)
    if paths:
        promote_symbols(library_version(trt)[0])
    for path in paths:
        try:
            library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise DeviceError(f"plugin library {path}: {error}; build it on this machine") from None
        registry = trt.get_plugin_registry()
        asked = any(hasattr(library, name) for name in _CREATOR_LISTS)
        if asked and hasattr(registry, "load_library") and registry.load_library(path) is None:
            raise DeviceError(
                "plugin library {}: {} refused it: {}".format(
                    path, version_text(trt), last_errors(log, "without a word")
                )
            )
