"""What becomes of our plugin library in a real plugin registry of TensorRT, as JSON: run by
test_tensorrt_registry.py in a Python that the bindings were built for.

    python in_registry.py v2 TENSORRT_FOLDER LIBRARY
    python in_registry.py v3 BINDINGS_FOLDER LIBRARY LEAN_RUNTIME

v2: the whole of TensorRT 8.5, which makes and reads engines' bytes of a plugin. v3: the bindings of
a later one, over the plugin registry of its lean runtime.
"""

from __future__ import annotations

import array
import ctypes
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# attributes of a node of every op, as the ONNX parser hands them over
NODES: dict[str, dict[str, Any]] = {
    "ShuffleDepthwise": {
        "groups": [3],
        "strides": [2, 2],
        "pads": [1, 0, 1, 2],
        "activation": "Relu",
        "x_scale": 0.5,
        "y_scale": 0.25,
    },
    "SePointwise": {"x_scale": 0.5, "y_scale": 0.25},
    "ChannelShuffle": {"groups": [4]},
}
REFUSED = {
    "ShuffleDepthwise": {"groups": [0]},
    "SePointwise": {"x_scale": 0.5},
    "ChannelShuffle": {},
}


def fields(trt: Any, attributes: dict[str, Any]) -> Any:
    """A PluginFieldCollection."""
    kinds = trt.PluginFieldType
    made = []
    for name, value in attributes.items():
        if isinstance(value, str):
            data, kind = array.array("b", value.encode() + b"\0"), kinds.CHAR
        elif isinstance(value, float):
            data, kind = array.array("f", [value]), kinds.FLOAT32
        else:
            data, kind = array.array("i", value), kinds.INT32
        _kept.append(data)  # a field only points to its data
        made.append(trt.PluginField(name, data, kind))
    return trt.PluginFieldCollection(made)


def empty_libraries(names: list[str]) -> None:
    """Shared objects of these names, with nothing in them, where libraries want to link them."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            made = str(Path(folder) / name)
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", os.devnull]
            subprocess.run([*command, "-o", made], check=True)
            _kept.append(ctypes.CDLL(made, mode=ctypes.RTLD_GLOBAL))


_kept: list[Any] = []


def whole_tensorrt(folder: Path) -> Any:
    """The module of TensorRT 8.5 with its own libraries; CUDA's are missing and aren't needed."""
    empty_libraries(["libcublas.so.11", "libcublasLt.so.11", "libcudnn.so.8"])
    _kept.append(ctypes.CDLL(str(folder / "tensorrt" / "libnvinfer.so.8"), mode=ctypes.RTLD_GLOBAL))
    sys.path.insert(0, str(folder))
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_LOCAL)
    import tensorrt

    return tensorrt


def v2(folder: Path, library: str) -> dict[str, Any]:
    """Per op: what the creator says, and what became of plugins and of damaged bytes."""
    trt = whole_tensorrt(folder)
    registry = trt.get_plugin_registry()
    _kept.append(ctypes.CDLL(library))
    found: dict[str, Any] = {}
    for op, attributes in NODES.items():
        creator = registry.get_plugin_creator(op, "1", "")
        plugin = creator.create_plugin(op, fields(trt, attributes))
        blob = bytes(plugin.serialize())
        again = creator.deserialize_plugin(op, blob)
        damaged = [blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :] for at in range(len(blob))]
        damaged += [blob[:at] for at in range(1, len(blob))]
        found[op] = {
            "fields": {f.name: f.type.name for f in creator.field_names},
            "type": [plugin.plugin_type, plugin.plugin_version, plugin.plugin_namespace],
            "outputs": plugin.num_outputs,
            "bytes": plugin.serialization_size,
            "same": bytes(again.serialize()) == blob and again.plugin_type == op,
            "clone": bytes(plugin.clone().serialize()) == blob,
            "damaged_taken": sum(creator.deserialize_plugin(op, d) is not None for d in damaged),
            "refused": creator.create_plugin(op, fields(trt, REFUSED[op])) is None,
        }
    return {"version": trt.__version__, "ops": found}


def bindings_loader() -> Any:
    """The module of tests/stubbed_tensorrt.py, under a name that no wheel's package has."""
    file = Path(__file__).resolve().parents[1] / "stubbed_tensorrt.py"
    spec = importlib.util.spec_from_file_location("bindings_loader", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def v3(site: Path, library: str, lean: str) -> dict[str, Any]:
    """Per op: what the creator says, and the plugin that was made while building."""
    _kept.append(ctypes.CDLL(lean, mode=ctypes.RTLD_GLOBAL))
    trt = bindings_loader().load(site)
    registry = trt.get_plugin_registry()
    _kept.append(ctypes.CDLL(library))
    found: dict[str, Any] = {}
    for op, attributes in NODES.items():
        creator = registry.get_creator(op, "1", "")
        build = trt.TensorRTPhase.BUILD
        plugin = creator.create_plugin(op, fields(trt, attributes), build)
        core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
        builds = plugin.get_capability_interface(trt.PluginCapabilityType.BUILD)
        _kept.append(plugin)
        found[op] = {
            "fields": {f.name: f.type.name for f in creator.field_names},
            "type": [core.plugin_name, core.plugin_version, core.plugin_namespace],
            "outputs": builds.num_outputs,
            "refused": creator.create_plugin(op, fields(trt, REFUSED[op]), build) is None,
        }
    return {"version": trt.__version__, "ops": found}


if __name__ == "__main__":
    which, place, plugins, *rest = sys.argv[1:]
    result = v2(Path(place), plugins) if which == "v2" else v3(Path(place), plugins, *rest)
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # TensorRT's own clean-up isn't the subject, and it runs without its CUDA
