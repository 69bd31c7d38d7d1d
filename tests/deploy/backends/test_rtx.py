"""TensorRT-RTX: what is refused before NVIDIA's library sees it, engines on disk, and real builds.

The builds need the library (`pip install onnx-deploy[rtx]`), and no GPU.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from dialects import dialect
from tiny_models import model, node, normal, quantized, ranges_of, residual

from deploy.analysis.vendor_layers import in_words, refused, vendor_layers
from deploy.artifacts.engine import Layer
from deploy.artifacts.model import Model, TensorSpec
from deploy.backends import rtx
from deploy.errors import BuildError, MissingBackendError
from deploy.floats.convert_float import convert_float
from deploy.floats.half_rest import half_rest
from deploy.nvidia.settings import Nvidia
from deploy.on_device import cuda_memory, trt_run
from deploy.on_device.device_error import NoDeviceError
from deploy.quantize import quantize
from deploy.target import EngineSettings

LIBRARIES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
INSTALLED = any(importlib.util.find_spec(name) for name in LIBRARIES)
needs_library = pytest.mark.skipif(
    not INSTALLED, reason="needs NVIDIA's library: pip install onnx-deploy[rtx]"
)
F4 = np.dtype(np.float32)


def settings(capability: str = "8.9", *, versions: tuple[str, ...] = ("1.7.1",)) -> EngineSettings:
    nvidia = Nvidia(
        library="tensorrt_rtx",
        versions=versions,
        compute_capability=capability,
        cuda="13.0",
        typing="strong",
    )
    return EngineSettings(nvidia=nvidia)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module in the library's place that knows its version and nothing else."""
    module = ModuleType("tensorrt_rtx")
    module.__version__ = "1.7.1.116"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    return module


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]


def an_engine() -> rtx.RtxEngine:
    layers = (
        Layer("conv_0", "correlation", "int8 -> fp32", "stub", ("conv", "x/dequantized")),
        Layer("relu_1", "kgen", "fp32 -> int8", "", ("relu",)),
    )
    facts = {"library": "TensorRT-RTX 1.7.1", "compute_capability": "8.9", "precision": "int8"}
    return rtx.RtxEngine(
        b"\x00plan",
        (TensorSpec("x", F4, (1, 3)),),
        (TensorSpec("b", F4, (1, None)), TensorSpec("a", F4, ())),
        layers,
        facts,
    )


FEEDS = {"x": np.zeros((1, 3), np.float32)}


class FakeMemory:
    """A GPU of compute capability 8.9."""

    def device_name(self) -> str:
        return "RTX 4090"

    def compute_capability(self) -> str:
        return "8.9"

    def close(self) -> None:
        pass


class FakeRunner:
    """Gives the engine's outputs, in another order."""

    made = 0

    def __init__(self, trt: Any, engine: bytes) -> None:
        FakeRunner.made += 1
        assert engine == b"\x00plan"
        self.closed = False

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"a": np.asarray(2, F4), "b": feeds["x"][:, :2] + 1}

    def prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        return lambda: None

    def close(self) -> None:
        self.closed = True


class TestRefusedBefore:
    def test_no_library(self, no_library: None) -> None:
        reason = r"TensorRT-RTX isn't installed .*pip install onnx-deploy\[rtx\] \(NVIDIA's licence"
        with pytest.raises(MissingBackendError, match=reason):
            rtx.build(residual(1), settings(), "fp32")

    @pytest.mark.parametrize("capability", ["7.2", "9.0", "11.0"])
    def test_a_chip_it_does_not_build_for(self, capability: str) -> None:
        reason = rf"compute_capability = {capability}; .* builds for 8\.6, 8\.9, 12\.0"
        with pytest.raises(BuildError, match=reason):
            rtx.build(residual(1), settings(capability), "fp32")

    def test_a_target_that_is_not_nvidias(self) -> None:
        with pytest.raises(BuildError, match=r"the target has no \[engine.nvidia\]"):
            rtx.build(residual(1), EngineSettings(), "fp32")

    def test_a_custom_operator(self, library: ModuleType) -> None:
        reason = "node 'own' is onnx_deploy.Own, and TensorRT-RTX takes no plugins without a GPU"
        with pytest.raises(BuildError, match=reason):
            rtx.build(custom(), settings(), "fp32")

    def test_a_custom_operator_inside_a_branch(self, library: ModuleType) -> None:
        body = onnx.helper.make_graph(
            [node("Own", ["x"], ["z"], name="inner", domain="onnx_deploy")],
            "body",
            [],
            [onnx.helper.make_tensor_value_info("z", 1, [1, 4])],
        )
        branch = node("If", ["c"], ["y"], name="if", then_branch=body, else_branch=body)
        network = custom()
        del network.proto.graph.node[:]
        network.proto.graph.node.append(branch)
        with pytest.raises(BuildError, match=r"node 'inner' is onnx_deploy\.Own"):
            rtx.build(network, settings(), "fp32")

    def test_another_release(self, library: ModuleType) -> None:
        reason = r"TensorRT-RTX 1\.7\.1 is installed here, the target's devices have 1\.6\.0, 2\."
        with pytest.raises(BuildError, match=reason):
            rtx.build(residual(1), settings(versions=("1.6.0", "2.0.0")), "fp32")


def custom() -> Model:
    network = model([node("Relu", ["x"], ["y"])], {"x": [1, 4]}, {"y": [1, 4]})
    made = network.proto.graph.node[0]
    made.op_type, made.domain, made.name = "Own", "onnx_deploy", "own"
    return network


class TestOnDisk:
    def test_a_loaded_engine_is_the_same(self, no_library: None, tmp_path: Path) -> None:
        with an_engine() as engine:
            engine.save(tmp_path)
            assert sorted(p.name for p in tmp_path.iterdir()) == [
                "engine.json",
                "layers.json",
                "model.engine",
            ]
            loaded = rtx.load(tmp_path, settings(), "int8")
            assert (loaded.inputs, loaded.outputs) == (engine.inputs, engine.outputs)
            assert loaded.layers() == engine.layers()
            assert loaded.properties() == engine.properties()
        assert loaded.properties()["device_name"] == "compute capability 8.9"
        assert (tmp_path / "model.engine").read_bytes() == b"\x00plan"

    def test_no_folder(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "none"):
            with pytest.raises(BuildError, match="no engine there; build it again"):
                rtx.load(folder, settings(), "int8")

    @pytest.mark.parametrize("name", ["engine.json", "layers.json", "model.engine"])
    def test_damaged_files(self, tmp_path: Path, name: str) -> None:
        an_engine().save(tmp_path)
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(BuildError, match=r"damaged engine: .*; build it again"):
            rtx.load(tmp_path, settings(), "int8")

    def test_files_of_another_form(self, tmp_path: Path) -> None:
        an_engine().save(tmp_path)
        (tmp_path / "layers.json").write_text(json.dumps([{"name": "a"}]))
        with pytest.raises(BuildError, match="damaged engine: 'kind'"):
            rtx.load(tmp_path, settings(), "int8")

    def test_another_chips_engine(self, tmp_path: Path) -> None:
        an_engine().save(tmp_path)
        reason = r"built for compute capability 8\.9, the target says 12\.0"
        with pytest.raises(BuildError, match=reason):
            rtx.load(tmp_path, settings("12.0"), "int8")


class TestRun:
    def test_without_a_gpu(self, library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        def nothing(trt: Any, engine: bytes) -> None:
            raise NoDeviceError("no NVIDIA GPU here: CUDA counts 0 devices")

        monkeypatch.setattr(trt_run, "Runner", nothing)
        reason = r"compute capability 8\.9 needs that GPU to run, and no NVIDIA GPU here: .*; its "
        engine = an_engine()
        for call in (engine.run, engine.prepare):
            with pytest.raises(BuildError, match=reason):
                call(FEEDS)

    def test_without_the_library(self, no_library: None) -> None:
        with pytest.raises(MissingBackendError, match="TensorRT-RTX isn't installed"):
            an_engine().run(FEEDS)

    def test_on_a_gpu(self, library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trt_run, "Runner", FakeRunner)
        FakeRunner.made = 0
        with an_engine() as engine:
            out = engine.run(FEEDS)
            assert list(out) == ["b", "a"]
            assert np.array_equal(out["b"], [[1, 1]])
            engine.prepare(FEEDS)()
            runner = engine._runner
        assert FakeRunner.made == 1
        assert runner.closed
        with pytest.raises(BuildError, match="the engine is closed"):
            engine.run(FEEDS)

    def test_feeds_are_checked_first(self, library: ModuleType) -> None:
        with pytest.raises(BuildError, match="input 'x' is missing"):
            an_engine().run({})


class TestWhyNotHere:
    def test_no_library(self, no_library: None) -> None:
        assert "TensorRT-RTX isn't installed" in (rtx.why_not_here(settings()) or "")

    def test_no_gpu(self, library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        def nothing() -> None:
            raise NoDeviceError("no NVIDIA GPU here: CUDA counts 0 devices")

        monkeypatch.setattr(cuda_memory, "open_device_memory", nothing)
        assert rtx.why_not_here(settings()) == "no NVIDIA GPU here: CUDA counts 0 devices"

    def test_another_gpu(self, library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda_memory, "open_device_memory", FakeMemory)
        reason = "the GPU here, RTX 4090, has compute capability 8.9, the target 12.0"
        assert rtx.why_not_here(settings("12.0")) == reason

    def test_a_target_that_is_not_nvidias(self) -> None:
        assert "no [engine.nvidia]" in (rtx.why_not_here(EngineSettings()) or "")

    def test_that_gpu(self, library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda_memory, "open_device_memory", FakeMemory)
        assert rtx.why_not_here(settings()) is None


@needs_library
class TestBuilt:
    @pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
    def test_int8(self, capability: str, tmp_path: Path) -> None:
        network = residual(1)
        shipped = quantize(network, ranges_of(network), dialect("tensorrt"))
        with rtx.build(shipped, settings(capability), "int8") as engine:
            rows = vendor_layers(engine.layers(), shipped)
            assert in_words(rows) == "3 of 3 layers with weights read INT8"
            assert refused(rows) == []
            assert [str(s) for s in engine.outputs] == ["y float32[1,5]"]
            assert int(engine.properties()["bytes_moved"]) > 0
            engine.save(tmp_path)
        with rtx.load(tmp_path, settings(capability), "int8") as loaded:
            assert loaded.layers() == engine.layers()

    def test_the_same_model_gives_the_same_files(self, tmp_path: Path) -> None:
        found = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            with rtx.build(residual(1), settings(), "fp32") as engine:
                engine.save(tmp_path / name)
            found.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
        assert found[0] == found[1]

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_16_bits(self, precision: str) -> None:
        made = convert_float(raised(residual(1)), precision)
        with rtx.build(made, settings(), precision) as engine:
            convs = [row for row in engine.layers() if row.kind == "correlation"]
        assert convs
        assert all(row.precision.split(" -> ")[0] == precision for row in convs)

    def test_int8_with_a_16_bit_rest(self) -> None:
        network = model(
            [
                node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
                node("Relu", ["c1"], ["r1"], name="relu1"),
                node("AveragePool", ["r1"], ["p"], name="pool", kernel_shape=[3, 3]),
                node("Conv", ["p", "w2"], ["y"], name="conv2"),
            ],
            {"x": [1, 16, 18, 20]},
            {"y": [1, 16, 16, 18]},
            {"w1": normal(16, 16, 3, 3), "w2": normal(16, 16, 1, 1, seed=1)},
        )
        before = quantize(network, ranges_of(network), dialect("tensorrt"))
        moved = {}
        for name, shipped in (("fp32", before), ("fp16", half_rest(before, "fp16"))):
            with rtx.build(shipped, settings(), "int8") as engine:
                assert in_words(vendor_layers(engine.layers(), shipped)).startswith("2 of 2")
                moved[name] = int(engine.properties()["bytes_moved"])
                kinds = {row.kind: row.precision for row in engine.layers()}
            assert kinds["avgpool"] == name
        assert moved["fp16"] < moved["fp32"]

    def test_a_dynamic_batch(self) -> None:
        with rtx.build(residual(), settings(), "fp32") as engine:
            assert [s.shape for s in (*engine.inputs, *engine.outputs)] == [
                (None, 3, 6, 8),
                (None, 5),
            ]

    def test_nvidias_words_and_the_node(self) -> None:
        asymmetric = quantized(residual(1))
        reason = (
            r"tiny: TensorRT-RTX 1\.7\.\d+ can't read the model: node \d+ '.*Linear.*zero point"
        )
        with pytest.raises(BuildError, match=reason) as caught:
            rtx.build(asymmetric, settings(), "int8")
        assert "\n" not in str(caught.value)

    def test_an_operator_it_does_not_have(self) -> None:
        network = model([node("Det", ["x"], ["y"], name="det")], {"x": [2, 3, 3]}, {"y": [2]})
        with pytest.raises(BuildError, match=r"'det' \(Det\)"):
            rtx.build(network, settings(), "fp32")


def raised(network: Model) -> Model:
    """The model in an opset whose Conv takes bfloat16."""
    proto = onnx.version_converter.convert_version(network.proto, 22)
    return Model(onnx.shape_inference.infer_shapes(proto), network.name)
