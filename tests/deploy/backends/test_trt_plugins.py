"""Kernels of ours in an engine that is built on this side: compiled, loaded, stored and checked,
on the double of TensorRT with a double of nvcc."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import Gpu, installed, plugin_library
from helpers import model_from, weight
from tiny_models import samples_of

from deploy.artifacts.model import Model
from deploy.backends import reference, trt
from deploy.errors import BuildError
from deploy.metrics import sqnr_db
from deploy.nvidia.settings import Nvidia
from deploy.plugin import libraries as plugin_libraries
from deploy.plugin.ops import expand_plugins
from deploy.target import EngineSettings, Target

TEXT = """g (float[1,6,5,7] x) => (float[1,6,5,7] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, w)
    y = onnx_deploy.ChannelShuffle <groups = 3> (c)
}"""
ORIN = {"versions": ["10.3.0"], "compute_capability": "8.7", "cuda": "12.6", "typing": "weak"}
SETTINGS = EngineSettings(batch=1, nvidia=Nvidia.model_validate(ORIN))


def network() -> Model:
    return model_from(TEXT, {"w": weight(6, 6, 3, 3)})


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with installed("10.3", sm=87, memory="cuda-python") as here:
        yield here


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A double that counts its calls; headers beside it; no CMake."""
    library = plugin_library(tmp_path / "double.so", "ChannelShuffle")
    tool = tmp_path / "nvcc"
    tool.write_text(
        f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/calls'\ncp '{library}' libonnx_deploy_plugins.so\n"
    )
    tool.chmod(0o755)
    versions = "#define NV_TENSORRT_MAJOR 10\n#define NV_TENSORRT_MINOR 3\n"
    (tmp_path / "NvInferVersion.h").write_text(versions)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: name if "/" in name else None)
    monkeypatch.setenv("NVCC", str(tool))
    monkeypatch.setenv("TENSORRT_INCLUDE", str(tmp_path))
    # a process keeps what it compiled
    plugin_libraries._tensorrt_library.cache_clear()
    plugin_libraries._scratch.cache_clear()
    return tool


def test_it_is_compiled_for_this_gpu_and_runs(gpu: Any, nvcc: Path) -> None:
    made = network()
    feeds = samples_of(made, 1)[0].feeds
    plain = made.derive(expand_plugins(made.proto, made.name), ())
    with reference.build(plain) as exact, trt.build(made, SETTINGS, "fp32") as engine:
        assert sqnr_db(exact.run(feeds)["y"], engine.run(feeds)["y"]) > 100
    (call,) = (nvcc.parent / "calls").read_text().splitlines()
    assert "arch=compute_87,code=sm_87" in call
    assert "channel_shuffle/trt_v3.cpp" in call and "channel_shuffle/kernel.cu" in call


def test_a_second_engine_takes_what_was_compiled(gpu: Any, nvcc: Path) -> None:
    for _ in range(2):
        trt.build(network(), SETTINGS, "fp32").close()
    assert len((nvcc.parent / "calls").read_text().splitlines()) == 1


def test_the_library_lies_beside_the_engine(gpu: Any, nvcc: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    feeds = samples_of(network(), 1)[0].feeds
    with trt.build(network(), SETTINGS, "fp32") as engine:
        engine.save(folder)
        first = engine.run(feeds)["y"]
    assert (folder / "libonnx_deploy_plugins.so").is_file()
    with trt.load(folder, SETTINGS, "fp32") as engine:
        assert (engine.run(feeds)["y"] == first).all()


def test_another_library_is_not_loaded(gpu: Any, nvcc: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    with trt.build(network(), SETTINGS, "fp32") as engine:
        engine.save(folder)
    with (folder / "libonnx_deploy_plugins.so").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(BuildError, match=r"its sha256 is .*, the engine was built with"):
        trt.load(folder, SETTINGS, "fp32")


def test_without_a_compiler(gpu: Any, nvcc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVCC", "absent")
    with pytest.raises(
        BuildError, match=r"^\w+: the model has plugins and there's no nvcc"
    ) as told:
        trt.build(network(), SETTINGS, "fp32")
    assert "--without-plugins" not in str(told.value)


def test_what_does_not_compile_is_tried_once_and_its_log_is_kept(
    gpu: Any, nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several candidates of a race ask for one library."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    nvcc.write_text(f"#!/bin/sh\necho call >> '{tmp_path}/calls'\necho 'error: no sm_87'\nexit 2\n")
    log = tmp_path / "channel_shuffle-tensorrt.log"
    for _ in range(2):
        with pytest.raises(BuildError, match=rf"nvcc ended with 2: error: no sm_87.*{log}"):
            trt.build(network(), SETTINGS, "fp32")
    assert (tmp_path / "calls").read_text() == "call\n"
    assert "error: no sm_87" in log.read_text()


def test_an_operator_of_no_plugin(gpu: Any, nvcc: Path) -> None:
    text = TEXT.replace("ChannelShuffle", "ChannelShuffel")
    made = model_from(text, {"w": weight(6, 6, 3, 3)})
    with pytest.raises(BuildError, match=r"no plugin for operator 'ChannelShuffel' \(did you mean"):
        trt.build(made, SETTINGS, "fp32")


def test_the_missing_gpu_is_told_before_the_compiler() -> None:
    """What can't be mended by installing a compiler comes first."""
    with pytest.raises(BuildError) as told:
        trt.build(network(), Target.load("xavier").engine, "fp16")
    assert "plugin" not in str(told.value)
