"""A plugin's kernel as a shared library, compiled on this machine from the plugin's folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy import registry
from deploy.errors import BuildError, MissingBackendError, RecipeError, one_line
from deploy.files import write_aside
from deploy.nvidia.settings import Nvidia

OPENVINO_SOURCE = "ov.cpp"
CUDA_SOURCE = "kernel.cu"
# TensorRT's two plugin interfaces, by the first release that takes the second
TENSORRT_SOURCES = ("trt_v2.cpp", "trt_v3.cpp")
_TENSORRT_V3 = 10
_TENSORRT_LIBRARY = "libonnx_deploy_plugins.so"
_CXX = ("c++", "g++", "clang++")
_LONGEST_S = 600


def build_openvino(name: str, output: Path, logs: Path | None = None) -> Path:
    """`lib<name>.so` in an existing folder: the extension that OpenVINO loads.

    logs: where a failing compiler's output goes, beside the library if not given. BuildError with
    its first error, and when the plugin has no OpenVINO kernel; MissingBackendError without a
    compiler or OpenVINO's headers.
    """
    folder = registry.path("plugin", name).parent
    if not (folder / OPENVINO_SOURCE).is_file():
        raise BuildError(
            f"{folder}: has no {OPENVINO_SOURCE}, so no kernel for OpenVINO; there the op's "
            "expansion runs"
        )
    package, library = _openvino_files()
    made = output.resolve() / f"lib{name}.so"
    aside = made.with_suffix(".partial")
    # no path of this machine gets into the library: the same sources give the same bytes
    flags = [f"-ffile-prefix-map={package}=openvino", "-isystem", str(package / "include")]
    flags += ["-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden"]
    command = [cxx_compiler(), *flags, OPENVINO_SOURCE, str(library), "-o", str(aside)]
    try:
        run_tool(command, folder, (logs or made.parent) / f"{made.stem}.log")
        aside.replace(made)
    finally:
        aside.unlink(missing_ok=True)
    return made


def tensorrt_source(nvidia: Nvidia) -> str:
    """The glue that the device's TensorRT takes."""
    return TENSORRT_SOURCES[nvidia.version[0] >= _TENSORRT_V3]


def build_tensorrt(
    names: Sequence[str], nvidia: Nvidia, output: Path, logs: Path | None = None
) -> Path:
    """`libonnx_deploy_plugins.so` in an existing folder: these plugins for one device.

    Compiled with CMake, nvcc and the headers in $TENSORRT_INCLUDE; linked with $TENSORRT_LIB, or
    left to find TensorRT in the process that loads it. Errors as `build_openvino` gives them.
    """
    folders = [registry.path("plugin", name).parent for name in names]
    for folder in folders:
        for file in (tensorrt_source(nvidia), CUDA_SOURCE):
            if not (folder / file).is_file():
                raise BuildError(
                    f"{folder}: has no {file}, which TensorRT {nvidia.versions[0]} needs"
                )
    cmake, nvcc = tool("cmake", "cmake"), cuda_compiler(nvidia)
    made, work = output.resolve() / _TENSORRT_LIBRARY, output.resolve() / "cmake"
    given = {
        "CUDA_ARCHS": str(nvidia.sm),
        "PLUGINS": ";".join(map(str, folders)),
        "TENSORRT_INCLUDE": str(_tensorrt_include(nvidia)),
        "TENSORRT_LIB": os.environ.get("TENSORRT_LIB", "none"),
        "CMAKE_CUDA_COMPILER": nvcc,
    }
    flags = [f"-D{key}={value}" for key, value in given.items()]
    root, log = registry.plugin_roots()[0], (logs or made.parent) / f"{made.stem}.log"
    try:
        run_tool([cmake, "-S", str(root), "-B", str(work), *flags], root, log)
        run_tool([cmake, "--build", str(work)], root, log)
        (work / _TENSORRT_LIBRARY).replace(made)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return made


def build_cuda(name: str, nvidia: Nvidia | None, output: Path, logs: Path) -> Path:
    """The plugin's CUDA kernels as an object file, for a device or for nvcc's own default."""
    folder = registry.path("plugin", name).parent
    made = output.resolve() / f"{name}.o"
    architecture = [] if nvidia is None else [f"-arch=sm_{nvidia.sm}"]
    include = f"-I{registry.plugin_roots()[0]}"
    flags = ["-std=c++14", "-O3", "-Xcompiler", "-fPIC", include, *architecture]
    command = [cuda_compiler(nvidia), *flags, "-c", CUDA_SOURCE, "-o", str(made)]
    run_tool(command, folder, logs / f"{name}-cuda.log")
    return made


def cuda_compiler(nvidia: Nvidia | None = None) -> str:
    """nvcc; MissingBackendError without one, or with one that doesn't know the device."""
    nvcc = tool("nvcc", "the CUDA toolkit")
    if nvidia is None:
        return nvcc
    done = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=False)
    known = done.stdout.split()
    if known and f"sm_{nvidia.sm}" not in known:
        raise MissingBackendError(
            f"{nvcc} compiles for {', '.join(known)}, not for sm_{nvidia.sm}; put the nvcc of CUDA "
            f"{nvidia.cuda}, which the device has, first on PATH"
        )
    return nvcc


def tool(name: str, package: str) -> str:
    """A program on PATH; MissingBackendError when it isn't there."""
    found = shutil.which(name)
    if found is None:
        raise MissingBackendError(f"{name} isn't on PATH; install {package}")
    return found


def run_tool(command: Sequence[str], cwd: Path, log: Path) -> None:
    """Run a compiler; BuildError with its first error line when it fails, all of it in `log`."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took over {_LONGEST_S} s in {cwd}; stopped it") from None
    if done.returncode == 0:
        return
    text = done.stdout.decode(errors="replace")
    write_aside(log, (" ".join(command) + "\n" + text).encode())
    lines = [line for line in text.splitlines() if "error" in line.lower()]
    first = one_line((lines or text.splitlines() or ["no output"])[0])
    raise BuildError(f"{cwd}: {Path(command[0]).name} failed: {first}; all of it is in {log}")


def cxx_compiler() -> str:
    """The C++ compiler: $CXX, or the system's; MissingBackendError when there is none."""
    chosen = os.environ.get("CXX")
    found = [path for name in ([chosen] if chosen else _CXX) if (path := shutil.which(name))]
    if not found:
        tried = f"CXX={chosen}" if chosen else ", ".join(_CXX)
        raise MissingBackendError(
            f"no C++ compiler ({tried}); install one, such as with `apt install g++`"
        )
    return found[0]


def _tensorrt_include(nvidia: Nvidia) -> Path:
    """The folder of NvInfer.h, of the device's major release; TENSORRT_INCLUDE may also be one with
    a <version>/include per release, as the tests take it."""
    given = os.environ.get("TENSORRT_INCLUDE", "")
    wanted = nvidia.versions[0]
    if not given:
        raise MissingBackendError(
            f"TENSORRT_INCLUDE isn't set; give it the folder of NvInfer.h of TensorRT {wanted}"
        )
    releases = (wanted, ".".join(wanted.split(".")[:2]))
    folders = [Path(given), *(Path(given) / release / "include" for release in releases)]
    folder = next((f for f in folders if (f / "NvInferVersion.h").is_file()), Path(given))
    version = folder / "NvInferVersion.h"
    if not version.is_file():
        raise RecipeError(f"TENSORRT_INCLUDE={given}: has no NvInferVersion.h; give its folder")
    text = version.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"#define +(?:NV_TENSORRT_MAJOR|TRT_MAJOR_ENTERPRISE) +(\d+)", text)
    if found is None or int(found.group(1)) != nvidia.version[0]:
        seen = found.group(1) if found else "an unknown"
        raise RecipeError(
            f"TENSORRT_INCLUDE={given}: has the headers of TensorRT {seen}, the target has {wanted}"
        )
    return folder


def _openvino_files() -> tuple[Path, Path]:
    """The folder of the installed OpenVINO, headers in `include`, and its core library."""
    import importlib.util

    spec = importlib.util.find_spec("openvino")
    if spec is None or not spec.submodule_search_locations:
        raise MissingBackendError("OpenVINO isn't installed; pip install openvino")
    package = Path(spec.submodule_search_locations[0])
    libraries = sorted((package / "libs").glob("libopenvino.*"))
    if not (package / "include" / "openvino" / "openvino.hpp").is_file() or not libraries:
        raise MissingBackendError(
            f"{package}: has no C++ headers; install OpenVINO from its wheel, pip install openvino"
        )
    return package, libraries[-1]
