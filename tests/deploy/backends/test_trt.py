"""TensorRT's backend on its double: which GPU and version it takes, what it builds and keeps."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialects import dialect
from doubles import Gpu, installed
from onnx import TensorProto, helper
from tiny_models import model, node, normal, ranges_of, residual, samples_of

from deploy import registry
from deploy.artifacts.model import copy_proto
from deploy.backends import trt
from deploy.errors import BuildError, MissingBackendError
from deploy.metrics import sqnr_db
from deploy.nvidia.host_plan import host_plan
from deploy.nvidia.settings import Nvidia
from deploy.quantize import quantize
from deploy.target import EngineSettings

FEEDS = samples_of(residual(), 1)[0].feeds
# version, compute capability, typing
RELEASES = [("8.5.2", "7.2", "weak"), ("10.3.0", "8.7", "weak"), ("11.4.0", "9.0", "strong")]


def settings(
    version: str = "10.3.0", capability: str = "8.7", typing: str = "weak", **engine: Any
) -> EngineSettings:
    nvidia = {
        "versions": [version],
        "compute_capability": capability,
        "cuda": "12.6",
        "typing": typing,
        "dla_cores": engine.pop("dla_cores", 0),
        "use_dla": engine.pop("use_dla", False),
    }
    return EngineSettings(**{"batch": "dynamic", **engine, "nvidia": Nvidia.model_validate(nvidia)})


@pytest.fixture
def orin() -> Iterator[Any]:
    """A Jetson Orin with TensorRT 10.3; at the end nothing may be left on its GPU."""
    with installed("10.3", sm=87, memory="cuda-python") as here:
        yield here


@pytest.mark.parametrize(("version", "capability", "typing"), RELEASES)
class TestEveryVersion:
    def test_float_and_int8(self, version: str, capability: str, typing: str) -> None:
        network = residual()
        int8 = quantize(network, ranges_of(network), dialect("tensorrt_8_5"))
        chosen = settings(version, capability, typing)
        with registry.module("backend", "reference").build(network) as engine:
            expected = engine.run(FEEDS)["y"]
        with installed(version, sm=int(capability.replace(".", ""))):
            assert trt.why_not_here(chosen) is None
            with trt.build(network, chosen, "fp32") as engine:
                assert sqnr_db(expected, engine.run(FEEDS)["y"]) > 100
            with trt.build(int8, chosen, "int8") as engine:
                assert 20 < sqnr_db(expected, engine.run(FEEDS)["y"]) < 60
                kinds = [x.precision for x in engine.layers() if x.kind == "Convolution"]
        assert kinds == ["int8", "int8"]

    def test_int64_is_the_models_own(self, version: str, capability: str, typing: str) -> None:
        """TensorRT 8 has int32 in its place."""
        made = model(
            [node("Add", ["ids", "ids"], ["twice"])],
            {"ids": (TensorProto.INT64, ["N", 3])},
            {"twice": (TensorProto.INT64, ["N", 3])},
        )
        ids = np.array([[1, 2, 3]])
        with (
            installed(version, sm=int(capability.replace(".", ""))),
            trt.build(made, settings(version, capability, typing), "fp32") as engine,
        ):
            assert [spec.dtype.name for spec in (*engine.inputs, *engine.outputs)] == ["int64"] * 2
            twice = engine.run({"ids": ids})["twice"]
            engine.prepare({"ids": ids})()
        assert twice.dtype == np.int64
        assert np.array_equal(twice, 2 * ids)


class TestWhyNotHere:
    def reason(self, chosen: EngineSettings) -> str:
        """The same from both: why not, and the refusal to build."""
        said = trt.why_not_here(chosen)
        with pytest.raises(BuildError) as caught:
            trt.build(residual(), chosen, "fp32")
        assert said == str(caught.value)
        return str(said)

    def test_here(self, orin: Any) -> None:
        assert trt.why_not_here(settings()) is None
        assert trt.why_not_here(settings(version="10.3.2")) is None

    def test_no_tensorrt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        said = self.reason(settings())
        assert said.startswith("tensorrt can't be imported")
        assert said.endswith("pip install onnx-deploy[trt]")

    def test_no_way_to_the_gpus_memory(self) -> None:
        with installed("10.3", sm=87, memory=""):
            said = self.reason(settings())
            with pytest.raises(MissingBackendError):
                trt.build(residual(), settings(), "fp32")
        assert "neither pycuda nor cuda-python" in said
        assert said.endswith("pip install onnx-deploy[trt]")

    def test_no_gpu(self) -> None:
        with installed("10.3", memory="cuda-python", gpu=Gpu(87, devices=0)):
            assert self.reason(settings()).startswith("no NVIDIA GPU here")

    def test_another_gpu(self, orin: Any) -> None:
        said = self.reason(settings("8.5.2", "7.2"))
        assert said.startswith("this GPU is sm_87, the target sm_72")

    def test_another_version(self, orin: Any) -> None:
        said = self.reason(settings("10.13.3"))
        assert said.startswith("TensorRT 10.3.0 is installed, the target has 10.13.3")

    def test_a_target_of_another_vendor(self) -> None:
        assert self.reason(EngineSettings()).startswith("backend trt without [engine.nvidia]")


class TestBuild:
    def test_int8_of_a_float_graph(self, orin: Any) -> None:
        with pytest.raises(BuildError, match="int8, and the graph has no Q/DQ; quantize it first"):
            trt.build(residual(), settings(), "int8")

    def test_a_size_that_is_free_besides_the_batch(self, orin: Any) -> None:
        made = model([node("Relu", ["x"], ["y"])], {"x": ["N", 3, "H"]}, {"y": ["N", 3, "H"]})
        reason = r"input x float32\[N,3,H\] is free in more than its batch.*give --shape x=…"
        with pytest.raises(BuildError, match=reason):
            trt.build(made, settings(), "fp32")

    def test_what_tensorrt_refuses_is_told_with_the_models_name(self, orin: Any) -> None:
        proto = copy_proto(residual().proto)
        proto.graph.node[1].domain = "of.others"
        proto.opset_import.append(helper.make_opsetid("of.others", 1))
        reason = r"^tiny: TensorRT 10\.3\.0 can't read the model: node 1 'relu1' \(Relu\)"
        with pytest.raises(BuildError, match=reason):
            trt.build(residual().derive(proto, ()), settings(), "fp32")

    @pytest.mark.parametrize(
        ("precision", "hint", "wanted"),
        [("fp16", {}, "fp16"), ("fp32", {}, "fp32"), ("bf16", {"bf16": "bf16"}, "bf16")],
    )
    def test_the_type_it_computes_in(
        self, orin: Any, precision: str, hint: dict[str, str], wanted: str
    ) -> None:
        chosen = settings(inference_precision=hint)
        with trt.build(residual(), chosen, precision) as engine:
            assert engine.properties()["inference_precision"] == wanted
            kinds = {x.precision for x in engine.layers() if x.kind == "Convolution"}
        if wanted != "bf16":  # the double's inspector has no word for it
            assert kinds == {wanted}

    def test_what_it_runs_on(self, orin: Any) -> None:
        with trt.build(residual(), settings(), "fp32") as engine:
            assert engine.properties() == {
                "device": "GPU, compute capability 8.7",
                "device_name": "Xavier",  # the double's GPU keeps its usual name
                "library": "TensorRT 10.3.0",
                "cuda": "11.4, driver 11.4",
                "inference_precision": "fp32",
            }

    def test_a_batch_outside_of_the_profile(self, orin: Any) -> None:
        with trt.build(residual(), settings(), "fp32") as engine:
            reason = r"isn't between \[1, 3, 6, 8\] and \[32, 3, 6, 8\]"
            with pytest.raises(BuildError, match=reason):
                engine.run({"x": normal(33, 3, 6, 8)})

    def test_a_batch_the_settings_fix_is_the_only_one(self, orin: Any) -> None:
        with trt.build(residual(), settings(batch=4), "fp32") as engine:
            assert engine.inputs[0].shape == (4, 3, 6, 8)
            with pytest.raises(BuildError, match=r"was fed shape \[1, 3, 6, 8\]"):
                engine.run({"x": normal(1, 3, 6, 8)})
            assert engine.run({"x": normal(4, 3, 6, 8)})["y"].shape == (4, 5)

    def test_measured_kernels_are_kept(self, orin: Any, tmp_path: Path) -> None:
        chosen = settings(cache_dir=str(tmp_path / "cache"))
        with trt.build(residual(), chosen, "fp32"):
            pass
        (kept,) = (tmp_path / "cache").iterdir()
        assert kept.name == "timing-tensorrt-10.3.0-sm87.cache"
        assert b"conv1" in kept.read_bytes()

    def test_a_dla(self, tmp_path: Path) -> None:
        chosen = settings(dla_cores=2, use_dla=True, batch=1)
        gpu = Gpu(87, dla_cores=2)
        with (
            installed("10.3", memory="cuda-python", gpu=gpu),
            trt.build(residual(), chosen, "fp16") as engine,
        ):
            assert engine.run(FEEDS)["y"].shape == (1, 5)
            share = engine.properties()["on_dla"]
            taken, count = (int(word) for word in share.split() if word.isdigit())
            assert 0 < taken < count
            engine.save(tmp_path)
            with trt.load(tmp_path, chosen, "fp16") as loaded:
                assert loaded.properties()["on_dla"] == share

    def test_a_dla_that_takes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chosen = settings(dla_cores=2, use_dla=True, batch=1)
        with installed("10.3", memory="cuda-python", gpu=Gpu(87, dla_cores=2)) as here:
            monkeypatch.setattr(
                here.trt.IBuilderConfig, "can_run_on_DLA", lambda self, layer: False
            )
            with pytest.raises(BuildError, match=r"no layer runs on the DLA.*another target"):
                trt.build(residual(), chosen, "fp16")


class TestOnDisk:
    def test_layers_and_types_come_back(self, orin: Any, tmp_path: Path) -> None:
        with trt.build(residual(), settings(), "fp16") as engine:
            engine.save(tmp_path)
            layers = engine.layers()
        with trt.load(tmp_path, settings(), "fp16") as loaded:
            assert loaded.layers() == layers
        assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.json", "model.engine"]
        assert json.loads((tmp_path / "engine.json").read_text())["library"] == "TensorRT 10.3.0"

    def test_an_engine_of_another_gpu(self, tmp_path: Path) -> None:
        with (
            installed("10.3", sm=86, memory="cuda-python"),
            trt.build(residual(), settings(capability="8.6"), "fp32") as engine,
        ):
            engine.save(tmp_path)
        with installed("10.3", sm=87, memory="cuda-python"):
            with pytest.raises(BuildError, match="this GPU is sm_87, the target sm_86"):
                trt.load(tmp_path, settings(capability="8.6"), "fp32")
            with pytest.raises(BuildError, match=r"can't load the engine: .*incompatible device"):
                trt.load(tmp_path, settings(), "fp32")

    def test_a_damaged_engine_behind_a_good_description(self, orin: Any, tmp_path: Path) -> None:
        with trt.build(residual(), settings(), "fp32") as engine:
            engine.save(tmp_path)
        (tmp_path / "model.engine").write_bytes(b"damaged")
        with pytest.raises(BuildError, match=r"can't load the engine: .*build it again"):
            trt.load(tmp_path, settings(), "fp32")


@pytest.mark.parametrize("key", ["version_compatible", "hardware_compatible"])
def test_compatibility_is_asked_for_where_the_target_says_so(key: str) -> None:
    plain = settings()
    assert plain.nvidia is not None
    asked = plain.nvidia.model_copy(update={key: True})
    assert not getattr(host_plan(residual(), plain, plain.nvidia, "fp32"), key)
    assert getattr(host_plan(residual(), plain, asked, "fp32"), key)
