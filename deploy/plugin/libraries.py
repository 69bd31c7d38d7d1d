"""The plugin kernels an engine needs: compiled for it, stored beside it, checked again before they
are loaded, since loading one runs its code."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from deploy import registry
from deploy.errors import BuildError, nearest
from deploy.files import sha256_of, write_aside
from deploy.on_device.device_error import DeviceError
from deploy.on_device.plugin_build import compiled_plugins, find_toolchain
from deploy.plugin.build import build_openvino
from deploy.plugin.ops import op_types, plugin_nodes

# what a kernel may be made of: a change in one of these makes another library
_SOURCES = (".cpp", ".h", ".hpp")
_CUDA_SOURCES = (*_SOURCES, ".cu", ".cuh")


@dataclass(frozen=True)
class Library:
    """A plugin's extension for OpenVINO on disk, or all of an engine's plugins for TensorRT."""

    plugin: str
    file: Path
    sha256: str


def paths(libraries: Sequence[Library]) -> list[str]:
    """Where they lie, in order."""
    return [str(library.file) for library in libraries]


def compiled_for(proto: onnx.ModelProto, name: str) -> tuple[Library, ...]:
    """The extensions of the plugin ops in a model, compiled once per process.

    BuildError for an op of the domain without a folder or without a kernel for OpenVINO.
    """
    return tuple(_library(plugin, _digest(plugin, _SOURCES)) for plugin in _used(proto, name))


def compiled_for_tensorrt(
    proto: onnx.ModelProto, name: str, capability: str, version: str
) -> tuple[Library, ...]:
    """One library with the TensorRT plugins of a model, compiled once per process for this GPU.

    capability: the GPU's, "9.0"; version: of the TensorRT that will load it. BuildError for an op
    without a folder, DeviceError for a missing tool or with the compiler's words.
    """
    plugins = tuple(_used(proto, name))
    digests = tuple(_digest(plugin, _CUDA_SOURCES) for plugin in plugins)
    if not plugins:
        return ()
    found = _tensorrt_library(plugins, digests, capability, version)
    if isinstance(found, DeviceError):
        raise DeviceError(str(found))
    return (found,)


def _used(proto: onnx.ModelProto, name: str) -> list[str]:
    """The plugins of a model's operators; BuildError for one without a folder."""
    known = op_types()
    used = sorted({node.op_type for node in plugin_nodes(proto)})
    for op in used:
        if op not in known:
            raise BuildError(
                f"{name}: no plugin for operator {op!r}{nearest(op, known)}; give its folder with "
                "--plugin-path"
            )
    return [known[op] for op in used]


def stored(libraries: Sequence[Library], folder: Path) -> list[dict[str, str]]:
    """Copies of the libraries in an existing folder, and what `read` takes to find them again."""
    rows = []
    for library in libraries:
        write_aside(folder / library.file.name, library.file.read_bytes())
        row = {"plugin": library.plugin, "file": library.file.name, "sha256": library.sha256}
        rows.append(row)
    return rows


def read(folder: Path, rows: Sequence[Mapping[str, str]]) -> tuple[Library, ...]:
    """The libraries that `stored` left in a folder; BuildError when one isn't what it was."""
    found = []
    for row in rows:
        # a name, not a path: nothing outside the folder is loaded
        file = folder / Path(row["file"]).name
        if not file.is_file():
            raise BuildError(f"{file}: the engine needs this library; copy it again or build again")
        digest = sha256_of(file)
        if digest != row["sha256"]:
            raise BuildError(
                f"{file}: its sha256 is {digest[:12]}…, the engine was built with "
                f"{row['sha256'][:12]}…; copy it again or build again"
            )
        found.append(Library(row["plugin"], file.resolve(), digest))
    return tuple(found)


def _digest(plugin: str, sources: Sequence[str]) -> str:
    folder = registry.path("plugin", plugin).parent
    digest = hashlib.sha256(str(folder).encode())
    for file in sorted(p for p in folder.iterdir() if p.suffix in sources):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def _library(plugin: str, digest: str) -> Library:
    folder = _scratch() / digest
    folder.mkdir(exist_ok=True)
    file = build_openvino(plugin, folder, Path(tempfile.gettempdir()))
    return Library(plugin, file, sha256_of(file))


@functools.cache
def _tensorrt_library(
    plugins: tuple[str, ...], digests: tuple[str, ...], capability: str, version: str
) -> Library | DeviceError:
    """The library, or why there is none: several engines ask for it, and nvcc takes its time."""
    folders = [str(registry.path("plugin", name).parent.resolve()) for name in plugins]
    made_of = "".join((*digests, capability, version))
    into = _scratch() / hashlib.sha256(made_of.encode()).hexdigest()[:16]
    # kept when this process and its folder are gone
    log = Path(tempfile.gettempdir()) / f"{'+'.join(plugins)}-tensorrt.log"
    try:
        tools = find_toolchain(os.environ, version)
        root = registry.plugin_roots()[0]
        file = compiled_plugins(root, folders, into, capability, tools, log)
    except DeviceError as error:
        return error
    return Library("+".join(plugins), file, sha256_of(file))


@functools.cache
def _scratch() -> Path:
    """A folder of this process, removed when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="onnx-deploy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
