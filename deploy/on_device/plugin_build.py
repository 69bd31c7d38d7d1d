"""plugins/ as one shared library for this GPU, built with its own nvcc and TensorRT headers."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.on_device.device_error import DeviceError
from deploy.on_device.manifest_check import Manifest, canonical_json, file_sha256, release
from deploy.on_device.running_library import running_library

PLUGIN_LIBRARY = "libonnx_deploy_plugins.so"
_LIMIT_S = 3600
_NVCC_PLACES = ("/usr/local/cuda/bin/nvcc",)
_INCLUDE_PLACES = (
    *("/usr/include/aarch64-linux-gnu", "/usr/include/x86_64-linux-gnu", "/usr/include"),
    *("/usr/local/tensorrt/include", "/opt/tensorrt/include"),
)
_LIBRARY_PLACES = (
    *("/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib"),
    *("/usr/local/tensorrt/lib", "/opt/tensorrt/lib"),
)
_HEADER_NUMBER = r"#define\s+(?:NV_TENSORRT|TRT)_{}(?:_ENTERPRISE)?\s+(\d+)"


class PluginLibrary(NamedTuple):
    """One plugin, the library it's in (relative to the folder), and the library's hash."""

    folder: str
    library: str
    sha256: str


class Toolchain(NamedTuple):
    """Paths of what compiles; cmake is "" where there is none, which is no obstacle."""

    nvcc: str
    cmake: str
    include: str
    library: str


def build_plugins(
    manifest: Manifest,
    capability: str,
    version: str,
    environment: Mapping[str, str] = os.environ,
) -> list[PluginLibrary]:
    """The libraries of the plugins that the manifest names; none where it names none.

    What was built from the same sources before is taken over. capability: the GPU's, "7.2";
    version: TensorRT's. DeviceError names the tool that is missing, or the log of what failed.
    """
    names = [str(plugin["folder"]) for plugin in manifest["plugins"]]
    if not names:
        return []
    try:
        tools = find_toolchain(environment, version)
        built = _built(manifest, names, capability, version, tools)
    except DeviceError as error:
        raise DeviceError(f"{error}; or run with --without-plugins") from None
    relative, digest = built.relative_to(manifest.folder).as_posix(), file_sha256(built)
    return [PluginLibrary(name, relative, digest) for name in names]


def _built(
    manifest: Manifest, names: Sequence[str], capability: str, version: str, tools: Toolchain
) -> Path:
    """The library, in a folder of its own for everything it was made of."""
    sources = {n: row["sha256"] for n, row in manifest.files.items() if n.startswith("plugins/")}
    key = hashlib.sha256(canonical_json([sources, capability, version, tools])).hexdigest()[:12]
    into = manifest.folder / "build" / f"plugins-{key}"
    return compiled_plugins(manifest.folder / "plugins", names, into, capability, tools)


def compiled_plugins(
    source: Path,
    names: Sequence[str],
    into: Path,
    capability: str,
    tools: Toolchain,
    log: Path | None = None,
) -> Path:
    """The library in the folder `into`, compiled unless it lies there already.

    source: the folder of CMakeLists.txt; names: of folders in it, or paths of others. log: what the
    tools say, beside `into` if not given.
    """
    if not (into / PLUGIN_LIBRARY).is_file():
        log = log or into.with_name("plugins.log")
        _build_aside(source, into, plugin_commands(source, names, capability, tools), log)
    return into / PLUGIN_LIBRARY


def find_toolchain(environment: Mapping[str, str], version: str) -> Toolchain:
    """nvcc, cmake and TensorRT's headers and library; DeviceError for what is missing.

    NVCC, TENSORRT_INCLUDE (a folder) and TENSORRT_LIB (a file) say where to look first.
    """
    path = environment.get("PATH")
    given = environment.get("NVCC")
    candidates = [given] if given else ["nvcc", *_NVCC_PLACES]
    nvcc = next((found for c in candidates if (found := shutil.which(c, path=path))), "")
    if not nvcc:
        raise DeviceError(
            f"the model has plugins and there's no nvcc at {', '.join(candidates)}; install CUDA's "
            "compiler (a Jetson: apt install nvidia-cuda-dev), or set NVCC"
        )
    include = _headers(environment, version)
    library = environment.get("TENSORRT_LIB") or _library(version)
    return Toolchain(nvcc, shutil.which("cmake", path=path) or "", include, library)


def _headers(environment: Mapping[str, str], version: str) -> str:
    given = environment.get("TENSORRT_INCLUDE")
    places = [given] if given else list(_INCLUDE_PLACES)
    for place in places:
        file = Path(place) / "NvInferVersion.h"
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        found = [re.search(_HEADER_NUMBER.format(part), text) for part in ("MAJOR", "MINOR")]
        numbers = tuple(int(match.group(1)) for match in found if match)
        if numbers != release(version)[:2]:
            said = ".".join(str(number) for number in numbers) or "an unknown version"
            raise DeviceError(
                f"{file}: headers of TensorRT {said}, and TensorRT {version} runs here; set "
                "TENSORRT_INCLUDE to the folder of the headers of that version"
            )
        return place
    raise DeviceError(
        f"the model has plugins and there's no NvInferVersion.h in {', '.join(places)}; install "
        "TensorRT's headers (a Jetson: apt install libnvinfer-dev), or set TENSORRT_INCLUDE"
    )


def _library(version: str) -> str:
    """libnvinfer.so.N: the one this process runs, or an installed one; else "none", which leaves
    its symbols open."""
    major = release(version)[0]
    found = [running_library(major), *(f"{p}/libnvinfer.so.{major}" for p in _LIBRARY_PLACES)]
    return next((path for path in found if path and Path(path).is_file()), "none")


def plugin_commands(
    source: Path, names: Sequence[str], capability: str, tools: Toolchain
) -> list[list[str]]:
    """What is run, in the folder that takes the library: CMake's two steps, or nvcc at once."""
    sm = capability.replace(".", "")
    if tools.cmake:
        configure = [
            *(tools.cmake, "-S", str(source), "-B", "."),
            *(f"-DCUDA_ARCHS={sm}", f"-DPLUGINS={';'.join(names)}"),
            *(f"-DCMAKE_CUDA_COMPILER={tools.nvcc}", f"-DTENSORRT_INCLUDE={tools.include}"),
            f"-DTENSORRT_LIB={tools.library}",
        ]
        return [configure, [tools.cmake, "--build", "."]]
    glue = "trt_v2.cpp" if _major(tools.include) < 10 else "trt_v3.cpp"
    files = [str(source / name / file) for name in names for file in (glue, "kernel.cu")]
    link = [] if tools.library == "none" else ["-Xlinker", tools.library]
    return [
        [
            *(tools.nvcc, "-shared", "-O3", "-std=c++14", "-Xcompiler", "-fPIC"),
            *("-gencode", f"arch=compute_{sm},code=sm_{sm}"),
            *("-I", str(source), "-isystem", tools.include),
            *files,
            *("-o", PLUGIN_LIBRARY),
            *link,
        ]
    ]


def _major(include: str) -> int:
    text = (Path(include) / "NvInferVersion.h").read_text(encoding="utf-8", errors="replace")
    found = re.search(_HEADER_NUMBER.format("MAJOR"), text)
    return int(found.group(1)) if found else 0


def _build_aside(source: Path, into: Path, commands: Sequence[Sequence[str]], log: Path) -> None:
    """Fill a fresh folder, which gets its name only with a library in it."""
    aside = into.with_name(into.name + ".partial")
    shutil.rmtree(str(aside), ignore_errors=True)
    aside.mkdir(parents=True)
    log.write_bytes(b"")
    for command in commands:
        _logged_run(command, aside, log)
    if not (aside / PLUGIN_LIBRARY).is_file():
        raise DeviceError(f"building {source} left no {PLUGIN_LIBRARY}; see {log}")
    shutil.rmtree(str(into), ignore_errors=True)
    aside.rename(into)


def _logged_run(command: Sequence[str], folder: Path, log: Path) -> None:
    with log.open("ab") as stream:
        stream.write(f"$ {' '.join(command)}\n".encode())
    try:
        done = subprocess.run(
            list(command),
            cwd=str(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError(f"{command[0]}: {error}; see {log}") from None
    with log.open("ab") as stream:
        stream.write(done.stdout)
    if done.returncode:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
        errors = [line.strip() for line in lines if "rror" in line] or lines[-1:]
        said = errors[0] if errors else "nothing to say why"
        raise DeviceError(
            f"{Path(command[0]).name} ended with {done.returncode}: {said}; the whole "
            f"output is in {log}"
        )
