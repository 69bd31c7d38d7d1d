from __future__ import annotations

import ctypes
import importlib
import sys
from pathlib import Path

import pytest
from doubles import installed, plugin_library
from planned import LATEST, ORIN, RELEASES, T4, XAVIER, Release

from deploy.on_device.device_error import DeviceError, MissingLibraryError, NoDeviceError
from deploy.on_device.trt_library import (
    LogLines,
    chooses_types,
    library_version,
    load_library,
    load_plugin_libraries,
    logged,
    made,
    version_text,
)


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_the_module_and_its_version(release: Release) -> None:
    with release.on() as here:
        trt = load_library("tensorrt")
        assert trt is here.trt
        numbers = [int(part) for part in release.version.split(".")]
        assert list(library_version(trt)[: len(numbers)]) == numbers
        assert version_text(trt).startswith(f"TensorRT {release.version}")
        assert chooses_types(trt) == (numbers[0] < 11)


def test_rtx_has_a_name_of_its_own() -> None:
    with installed("rtx-1.7.1", sm=89, memory="cuda-python"):
        assert version_text(load_library("tensorrt_rtx")) == "TensorRT-RTX 1.7.1"


def test_a_wheels_fourth_number_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with XAVIER.on() as here:
        monkeypatch.setitem(here.trt.__dict__, "__version__", "8.5.2.2")
        assert library_version(here.trt) == (8, 5, 2)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_no_library_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (name, f"{name}_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    pip = f"pip install {name.replace('_', '-')}"
    with pytest.raises(MissingLibraryError, match=f"{name} can't be imported .*{pip}"):
        load_library(name)


@pytest.mark.parametrize(
    "error", [OSError("libnvinfer.so.8: no such file"), AttributeError("bool")]
)
def test_a_library_that_ends_in_an_error_of_its_own(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", fails)
    with pytest.raises(
        MissingLibraryError, match=f"tensorrt can't be imported .{error}.; a Jetson"
    ):
        load_library("tensorrt")


def test_the_log_keeps_severity_and_text() -> None:
    with XAVIER.on() as here:
        log = LogLines(here.trt)
        for severity, text in (("ERROR", "a"), ("INFO", "b"), ("ERROR", "a"), ("WARNING", "c")):
            log.log(getattr(here.trt.ILogger, severity), text)
        assert isinstance(log, here.trt.ILogger)
        assert log.lines == [("ERROR", "a"), ("INFO", "b"), ("ERROR", "a"), ("WARNING", "c")]
        assert logged(log, "ERROR", "WARNING") == ["a", "c"]


def test_a_builder_without_a_gpu() -> None:
    with XAVIER.on(devices=0) as here:
        log = LogLines(here.trt)
        with pytest.raises(NoDeviceError, match=r"can't make its builder: CUDA init.* error: 35"):
            made(log, "builder", here.trt.Builder, log)


class TestPlugins:
    @pytest.mark.parametrize("release", [XAVIER, T4, ORIN, LATEST])
    def test_a_library_that_registers_itself(self, release: Release, tmp_path: Path) -> None:
        path = plugin_library(tmp_path / "plugins.so", "ChannelShuffle")
        with release.on() as here:
            load_plugin_libraries(here.trt, LogLines(here.trt), [str(path)])
            assert "ChannelShuffle" in here.trt.get_plugin_registry()._names()

    @pytest.mark.parametrize("release", [T4, ORIN, LATEST])
    def test_a_library_that_lists_its_creators(self, release: Release, tmp_path: Path) -> None:
        path = plugin_library(tmp_path / "plugins.so", "ChannelShuffle", listed=True)
        with release.on() as here:
            load_plugin_libraries(here.trt, LogLines(here.trt), [str(path)])
            assert here.trt.get_plugin_registry()._names() == ["ChannelShuffle"]

    @pytest.mark.parametrize(("libraries", "asked"), [(["plugins.so"], [8]), ([], [])])
    def test_tensorrts_symbols_are_there_for_them(
        self,
        libraries: list[str],
        asked: list[int],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        plugin_library(tmp_path / "plugins.so", "ChannelShuffle")
        majors: list[int] = []
        monkeypatch.setattr("deploy.on_device.trt_library.promote_symbols", majors.append)
        with XAVIER.on() as here:
            paths = [str(tmp_path / name) for name in libraries]
            load_plugin_libraries(here.trt, LogLines(here.trt), paths)
        assert majors == asked

    def test_a_library_that_is_not_there(self, tmp_path: Path) -> None:
        with XAVIER.on() as here, pytest.raises(DeviceError, match=r"plugin library .*none\.so"):
            load_plugin_libraries(here.trt, LogLines(here.trt), [str(tmp_path / "none.so")])

    def test_a_library_that_the_registry_refuses(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = plugin_library(tmp_path / "plugins.so", "ChannelShuffle", listed=True)
        with ORIN.on() as here:
            log = LogLines(here.trt)
            registry = type(here.trt.get_plugin_registry())
            monkeypatch.setattr(registry, "load_library", lambda self, plugin_path: None)
            with pytest.raises(DeviceError, match=r"TensorRT 10\.3\.0 refused it"):
                load_plugin_libraries(here.trt, log, [str(path)])

    def test_symbols_are_visible_to_later_libraries(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A second library may lean on the first."""
        path, modes = plugin_library(tmp_path / "plugins.so", "ChannelShuffle"), []
        with XAVIER.on() as here:
            real = ctypes.CDLL

            def spy(name: object, mode: int = 0) -> object:
                modes.append(mode)
                return real(name, mode=mode)  # type: ignore[arg-type]

            monkeypatch.setattr(ctypes, "CDLL", spy)
            load_plugin_libraries(here.trt, LogLines(here.trt), [str(path)])
            monkeypatch.undo()
        assert modes == [ctypes.RTLD_GLOBAL]
