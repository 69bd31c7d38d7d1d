from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from device_folder import write_device

from deploy.on_device.device_error import DeviceError
from deploy.on_device.manifest_check import Manifest, file_sha256, read_manifest
from deploy.on_device.plugin_build import (
    PLUGIN_LIBRARY,
    Toolchain,
    build_plugins,
    find_toolchain,
    plugin_commands,
)

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = [
    {"folder": "se_pointwise", "op": "SePointwise", "version": "1"},
    {"folder": "channel_shuffle", "op": "ChannelShuffle", "version": "1"},
]
# notes what it was called with, and writes the library
NVCC = """#!{python}
import sys
from pathlib import Path
with open({calls!r}, "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if {fails}:
    print("kernel.cu(7): error: identifier `x` is undefined")
    sys.exit(2)
if "-o" in sys.argv:
    Path(sys.argv[sys.argv.index("-o") + 1]).write_text("library")
if "--build" in sys.argv:
    Path({library!r}).write_text("library")
"""


def device(folder: Path, kernel: bytes = b"// kernel") -> Manifest:
    files = {f"plugins/{row['folder']}/kernel.cu": kernel for row in PLUGINS}
    return read_manifest(write_device(folder, plugins=PLUGINS, extra_files=files))


class Tools:
    """A PATH with doubles of nvcc and CMake, and headers of a TensorRT."""

    def __init__(self, folder: Path, version: str = "8.5.2", *, fails: bool = False) -> None:
        self.calls = folder / "calls"
        self.calls.write_text("")
        self.bin, include = folder / "bin", folder / "include"
        self.bin.mkdir()
        include.mkdir()
        major, minor, patch = version.split(".")
        (include / "NvInferVersion.h").write_text(
            f"#define NV_TENSORRT_MAJOR {major} //!< major\n#define NV_TENSORRT_MINOR {minor}\n"
            f"#define NV_TENSORRT_PATCH {patch}\n"
        )
        self.fails = fails
        self.include = include
        self.tool("nvcc")
        self.environment = {
            "PATH": str(self.bin),
            "TENSORRT_INCLUDE": str(include),
            "TENSORRT_LIB": "none",
        }

    def tool(self, name: str) -> None:
        text = NVCC.format(
            python=sys.executable, calls=str(self.calls), fails=self.fails, library=PLUGIN_LIBRARY
        )
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def seen(self) -> list[str]:
        return self.calls.read_text().splitlines()


def test_without_plugins_nothing_is_looked_for(tmp_path: Path) -> None:
    manifest = read_manifest(write_device(tmp_path / "device"))
    assert build_plugins(manifest, "7.2", "8.5.2", {"PATH": ""}) == []


def test_nvcc_alone_is_enough(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    manifest = device(tmp_path / "device")
    built = build_plugins(manifest, "7.2", "8.5.2.2", tools.environment)
    (call,) = tools.seen()
    assert "-gencode arch=compute_72,code=sm_72" in call
    assert f"{manifest.folder}/plugins/se_pointwise/trt_v2.cpp" in call
    assert f"{manifest.folder}/plugins/channel_shuffle/kernel.cu" in call
    assert [row.folder for row in built] == ["se_pointwise", "channel_shuffle"]
    library = manifest.folder / built[0].library
    assert library.name == PLUGIN_LIBRARY
    assert {row.sha256 for row in built} == {file_sha256(library)}


def test_cmake_where_there_is_one(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    tools.tool("cmake")
    build_plugins(device(tmp_path / "device"), "7.2", "8.5.2", tools.environment)
    configure, build = tools.seen()
    assert "-DCUDA_ARCHS=72 -DPLUGINS=se_pointwise;channel_shuffle" in configure
    assert f"-DTENSORRT_INCLUDE={tools.include}" in configure
    assert "-DTENSORRT_LIB=none" in configure
    assert build == "--build ."


@pytest.mark.parametrize(("version", "glue"), [("8.6.1", "trt_v2.cpp"), ("10.3.0", "trt_v3.cpp")])
def test_glue_by_version(tmp_path: Path, version: str, glue: str) -> None:
    include = Tools(tmp_path, version).include
    tools = Toolchain("nvcc", "", str(include), "/lib/libnvinfer.so")
    (command,) = plugin_commands(Path("plugins"), ["se_pointwise"], "8.7", tools)
    assert f"plugins/se_pointwise/{glue}" in command
    assert command[-2:] == ["-Xlinker", "/lib/libnvinfer.so"]


def test_the_same_sources_are_built_once(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    manifest = device(tmp_path / "device")
    first = build_plugins(manifest, "7.2", "8.5.2", tools.environment)
    assert build_plugins(manifest, "7.2", "8.5.2", tools.environment) == first
    assert len(tools.seen()) == 1
    build_plugins(manifest, "8.7", "8.5.2", tools.environment)
    build_plugins(device(tmp_path / "device", b"// new"), "7.2", "8.5.2", tools.environment)
    assert len(tools.seen()) == 3


def test_what_fails_is_named_with_its_log(tmp_path: Path) -> None:
    tools = Tools(tmp_path, fails=True)
    manifest = device(tmp_path / "device")
    with pytest.raises(DeviceError, match=r"nvcc ended with 2: kernel\.cu\(7\): error: iden") as e:
        build_plugins(manifest, "7.2", "8.5.2", tools.environment)
    log = manifest.folder / "build" / "plugins.log"
    assert str(log) in str(e.value)
    assert "identifier `x` is undefined" in log.read_text()
    # a second run doesn't take the failed one for a library
    with pytest.raises(DeviceError, match="ended with 2"):
        build_plugins(manifest, "7.2", "8.5.2", tools.environment)


def test_no_nvcc(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "NVCC": str(tmp_path / "nvcc")}
    with pytest.raises(DeviceError, match=r"no nvcc at .*, or set NVCC$"):
        find_toolchain(environment, "8.5.2")


def test_no_headers(tmp_path: Path) -> None:
    environment = {**Tools(tmp_path).environment, "TENSORRT_INCLUDE": str(tmp_path)}
    with pytest.raises(DeviceError, match=r"no NvInferVersion\.h in .*libnvinfer-dev"):
        find_toolchain(environment, "8.5.2")


def test_headers_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"headers of TensorRT 8\.6, and TensorRT 8\.5\.2 runs"):
        find_toolchain(Tools(tmp_path, "8.6.1").environment, "8.5.2")


def test_newer_headers_name_their_numbers_otherwise(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    (tools.include / "NvInferVersion.h").write_text(
        "#define TRT_MAJOR_ENTERPRISE 10\n#define TRT_MINOR_ENTERPRISE 16\n"
        "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE //!< major\n"
        "#define NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE\n"
    )
    assert find_toolchain(tools.environment, "10.16.1").include == str(tools.include)


@pytest.mark.parametrize(("version", "way"), [("8.5.2", "nvcc"), ("10.16", "cmake")])
def test_the_real_sources_compile(tmp_path: Path, version: str, way: str) -> None:
    """Opt-in: nvcc, and TENSORRT_INCLUDE with <version>/include, the headers of each release."""
    headers = Path(os.environ.get("TENSORRT_INCLUDE", "")) / version / "include"
    nvcc, found = shutil.which("nvcc"), shutil.which(way)
    if not nvcc or not found or not (headers / "NvInfer.h").is_file():
        pytest.skip(f"needs nvcc, {way}, and TENSORRT_INCLUDE with a {version}/include")
    files = {
        f"plugins/{path.relative_to(ROOT / 'plugins')}": path.read_bytes()
        for path in (ROOT / "plugins").rglob("*")
        if path.suffix in (".h", ".cuh", ".cu", ".cpp", ".txt") and path.name != "ov.cpp"
    }
    folder = write_device(tmp_path / "device", plugins=PLUGINS, extra_files=files)
    # a PATH with or without CMake, and the compilers in both
    bins = tmp_path / "bin"
    bins.mkdir()
    for tool in ("nvcc", "gcc", "g++", "cc", "c++", "ld", "as", "ar", "sh", "make", "ninja", way):
        if path := shutil.which(tool):
            (bins / tool).exists() or (bins / tool).symlink_to(path)
    environment = {"PATH": str(bins), "TENSORRT_INCLUDE": str(headers), "NVCC": nvcc}
    library = folder / build_plugins(read_manifest(folder), "8.7", version, environment)[0].library
    listed = subprocess.run(["nm", "-D", str(library)], capture_output=True, text=True, check=True)
    assert "getPluginRegistry" in listed.stdout or "getCreators" in listed.stdout
