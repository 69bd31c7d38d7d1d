"""Compiling plugins: what is made, and what is said where a tool or a header is missing."""

from __future__ import annotations

import importlib.util
import stat
from pathlib import Path
from typing import Any

import pytest
from plugin_folders import copied, forget, needs_compiler
from tensorrt_headers import headers

from deploy import registry
from deploy.errors import BuildError, MissingBackendError, RecipeError
from deploy.plugin import build as plugin_build
from deploy.plugin.build import build_openvino, build_tensorrt, cuda_compiler, cxx_compiler
from deploy.target import Target

XAVIER, ORIN = (Target.load(name).engine.nvidia for name in ("xavier", "orin"))
assert XAVIER is not None
assert ORIN is not None


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


def program(folder: Path, name: str, script: str) -> Path:
    """A program of that name that does what the script says."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class TestOpenVino:
    def test_a_users_folder(self, tmp_path: Path) -> None:
        needs_compiler()
        copied(tmp_path / "mine", "my_shuffle", kernel=True)
        registry.add_plugin_path(tmp_path / "mine")
        made = build_openvino("my_shuffle", tmp_path)
        assert made == tmp_path / "libmy_shuffle.so"
        assert made.read_bytes()[:4] == b"\x7fELF"
        assert not list(tmp_path.glob("*.log"))

    def test_no_kernel(self, tmp_path: Path) -> None:
        copied(tmp_path / "mine", "my_shuffle")
        registry.add_plugin_path(tmp_path / "mine")
        with pytest.raises(BuildError, match=r"my_shuffle: has no ov\.cpp, .* expansion runs"):
            build_openvino("my_shuffle", tmp_path)

    def test_a_kernel_that_does_not_compile(self, tmp_path: Path) -> None:
        needs_compiler()
        folder = copied(tmp_path / "mine", "my_shuffle", kernel=True)
        (folder / "ov.cpp").write_text("int main() { return missing; }\n")
        registry.add_plugin_path(tmp_path / "mine")
        with pytest.raises(
            BuildError, match=r"failed: ov\.cpp:1:.*missing.*; all of it is in"
        ) as e:
            build_openvino("my_shuffle", tmp_path)
        log = tmp_path / "libmy_shuffle.log"
        assert str(log) in str(e.value)
        assert "-shared" in log.read_text()
        assert not list(tmp_path.glob("libmy_shuffle.*so"))
        assert not list(tmp_path.glob("*.partial"))

    @pytest.mark.parametrize("given", ["", "no-such-compiler"])
    def test_no_compiler(self, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        monkeypatch.setenv("CXX", given)
        tried = "CXX=no-such-compiler" if given else r"c\+\+, g\+\+, clang\+\+"
        with pytest.raises(
            MissingBackendError, match=rf"no C\+\+ compiler \({tried}\); install one"
        ):
            cxx_compiler()

    @pytest.mark.parametrize("installed", [True, False])
    def test_no_headers(
        self, installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = importlib.util.find_spec

        def found(name: str, *args: Any) -> Any:
            if name != "openvino":
                return real(name, *args)
            spec = real("json")
            assert spec is not None
            spec.submodule_search_locations = [str(tmp_path)]
            return spec if installed else None

        monkeypatch.setattr(importlib.util, "find_spec", found)
        reason = r"has no C\+\+ headers; install" if installed else "OpenVINO isn't installed; pip"
        with pytest.raises(MissingBackendError, match=reason):
            build_openvino("channel_shuffle", tmp_path)


class TestTensorRt:
    def test_the_glue_follows_the_release(self) -> None:
        assert plugin_build.tensorrt_source(XAVIER) == "trt_v2.cpp"
        assert plugin_build.tensorrt_source(ORIN) == "trt_v3.cpp"

    def test_a_folder_without_glue(self, tmp_path: Path) -> None:
        copied(tmp_path / "mine", "my_shuffle")
        registry.add_plugin_path(tmp_path / "mine")
        with pytest.raises(BuildError, match=r"has no trt_v2\.cpp, which TensorRT 8\.5\.2 needs"):
            build_tensorrt(["my_shuffle"], XAVIER, tmp_path)

    @pytest.mark.parametrize(
        ("there", "reason"),
        [
            ([], "cmake isn't on PATH; install cmake"),
            (["cmake"], "nvcc isn't on PATH; install the CUDA toolkit"),
        ],
    )
    def test_no_tool(
        self, there: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in there:
            program(tmp_path / "bin", name, "exit 0")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        with pytest.raises(MissingBackendError, match=reason):
            build_tensorrt(["shuffle_depthwise"], ORIN, tmp_path)

    def test_an_nvcc_that_does_not_know_the_device(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program(tmp_path / "bin", "nvcc", "echo sm_75; echo sm_87")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        reason = r"compiles for sm_75, sm_87, not for sm_72; put the nvcc of CUDA 11\.4"
        with pytest.raises(MissingBackendError, match=reason):
            cuda_compiler(XAVIER)
        assert cuda_compiler(ORIN) == str(tmp_path / "bin" / "nvcc")

    @pytest.mark.parametrize(
        ("header", "kind", "reason"),
        [
            (None, MissingBackendError, r"TENSORRT_INCLUDE isn't set; .* of TensorRT 10\.3"),
            ("", RecipeError, "has no NvInferVersion.h; give its folder"),
            (
                "#define NV_TENSORRT_MAJOR 8\n",
                RecipeError,
                "headers of TensorRT 8, the target has 10",
            ),
            ("#define NOTHING\n", RecipeError, "headers of TensorRT an unknown, the target has 10"),
        ],
    )
    def test_headers(
        self,
        header: str | None,
        kind: type[Exception],
        reason: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("cmake", "nvcc"):
            program(tmp_path / "bin", name, "exit 0")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.delenv("TENSORRT_INCLUDE", raising=False)
        if header is not None:
            monkeypatch.setenv("TENSORRT_INCLUDE", str(tmp_path))
            if header:
                (tmp_path / "NvInferVersion.h").write_text(header)
        with pytest.raises(kind, match=reason):
            build_tensorrt(["shuffle_depthwise"], ORIN, tmp_path)

    @pytest.mark.parametrize("within", [".", "10.3.0/include", "10.3/include"])
    def test_cmake_gets_device_folders_and_headers(
        self, within: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = f"""echo "$@" >> {tmp_path}/calls
        [ "$1" = --build ] && echo made > "$2/libonnx_deploy_plugins.so" || /bin/mkdir -p "$4" """
        program(tmp_path / "bin", "cmake", script + "\nexit 0")
        program(tmp_path / "bin", "nvcc", "exit 0")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setenv("TENSORRT_INCLUDE", str(tmp_path))
        include = tmp_path / within
        include.mkdir(parents=True, exist_ok=True)
        (include / "NvInferVersion.h").write_text("#define TRT_MAJOR_ENTERPRISE 10\n")
        made = build_tensorrt(["se_pointwise", "shuffle_depthwise"], ORIN, tmp_path)
        assert made.read_text() == "made\n"
        first = (tmp_path / "calls").read_text().splitlines()[0]
        folders = ";".join(
            str(registry.path("plugin", name).parent)
            for name in ("se_pointwise", "shuffle_depthwise")
        )
        wanted = ("CUDA_ARCHS=87", f"PLUGINS={folders}", f"TENSORRT_INCLUDE={include} ")
        assert all(f"-D{each}" in f"{first} " for each in wanted)
        assert not (tmp_path / "cmake").exists()

    def test_a_failing_build_says_where_it_is_written_down(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program(tmp_path / "bin", "cmake", "echo 'CMake Error: no such thing'; exit 1")
        program(tmp_path / "bin", "nvcc", "exit 0")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setenv("TENSORRT_INCLUDE", str(tmp_path))
        (tmp_path / "NvInferVersion.h").write_text("#define NV_TENSORRT_MAJOR 10\n")
        log = tmp_path / "libonnx_deploy_plugins.log"
        with pytest.raises(BuildError, match=f"CMake Error: no such thing; all of it is in {log}"):
            build_tensorrt(["shuffle_depthwise"], ORIN, tmp_path)

    def test_against_the_real_headers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TENSORRT_INCLUDE", str(headers("10.3")))
        try:
            made = build_tensorrt(["shuffle_depthwise", "se_pointwise"], ORIN, tmp_path)
        except (MissingBackendError, RecipeError) as error:
            pytest.skip(str(error))
        assert made.read_bytes()[:4] == b"\x7fELF"
