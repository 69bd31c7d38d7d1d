"""INT8 from a calibration cache on the very device, where TensorRT takes no Q/DQ: TensorRT's double
builds, judges and times the engines here, by the code that finish.py runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from doubles import Gpu, installed

from deploy.cli import run
from deploy.nvidia import carried
from deploy.nvidia.implicit import Implicit
from deploy.on_device.trt_run import Runner

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
# TensorRT, compute capability, target
DEVICES = [("8.5.2", 72, "xavier"), ("8.5.2", 72, "xavier-dla"), ("10.3.0", 87, "orin-dla")]


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.nvidia.device.no_gpu", lambda: "")
    monkeypatch.setenv("NVCC", "absent")  # kernels of ours are in test_kernels_here.py


Build = Callable[..., int]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """build(folder, target, ...) -> the exit code; judged on few samples."""
    few = tmp_path_factory.mktemp("data") / "few.npz"
    with np.load(DIGITS / "test.npz") as file:
        np.savez(few, **{name: file[name][:40] for name in file.files})

    def made(folder: Path, target: str, *more: object) -> int:
        words = ("build", DIGITS / "digits.onnx", "--target", target, "--int8")
        data = ("--data", DIGITS / "calib.npz", "--eval-data", few, "-o", folder)
        return run([str(word) for word in (*words, *data, *more)])

    return made


def jetson(sm: int, dla_cores: int = 2) -> Gpu:
    return Gpu(sm, "Jetson", dla_cores=dla_cores)


def read(bundle: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / name).read_text())
    return found


@pytest.fixture(scope="module", params=DEVICES, ids=[target for _, _, target in DEVICES])
def bundle(
    request: pytest.FixtureRequest, build: Build, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A bundle of each target, named so, while its TensorRT and GPU are here."""
    version, sm, target = request.param
    folder: Path = tmp_path_factory.mktemp("bundles") / target
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.nvidia.device.no_gpu", lambda: "")
        patch.setenv("NVCC", "absent")
        with installed(version, gpu=jetson(sm), memory="cuda-python"):
            assert build(folder, target) == 0
            yield folder


class TestOnTheDevice:
    def test_int8_is_built_judged_raced_and_said(self, bundle: Path) -> None:
        choice, report = read(bundle, "precision.json"), read(bundle, "report.json")
        assert choice["measured_here"] is True and "GPU time" in choice["reason"]
        tried = {row["name"]: row for row in choice["tried"]}
        floats = ["fp16"] if bundle.name.endswith("dla") else ["fp32", "fp16"]
        assert set(tried) >= {"all", "sums-float", *floats}
        assert all(tried[name]["median_ms"] > 0 for name in ("all", "sums-float", *floats))
        assert tried["all"]["outcome"] == "passed" and 25 < tried["all"]["sqnr_db"] < 45
        device, summary = report["device"], report["summary"]
        assert (device["rung_words"], device["absent"]) == ("ran on the device", "")
        assert summary["on_target"] is True
        assert device["quantization"] == "implicit"
        counted = device["eight_bits"]
        assert counted["layers_int8"] > 15 and counted["not_int8"] == []
        total = counted["layers_int8"] + counted["layers_float"]
        assert total == len(report["layers"])
        assert f"{counted['layers_int8']} of {total} layers run in INT8" in str(summary["evidence"])
        on_dla = "The DLA takes " in str(summary["evidence"])
        assert on_dla == bundle.name.endswith("dla") == ("on_dla" in report["engine"])
        assert read(bundle, "manifest.json")["results"]["device"]["proven"] == "ran on the device"
        assert run(["verify", str(bundle)]) == 0
        assert run(["parity", str(bundle)]) == 0

    def test_the_engine_is_what_was_judged(self, bundle: Path) -> None:
        import tensorrt

        samples = np.load(bundle / "parity/samples.npz")["image"]
        judged = np.load(bundle / "parity/engine.npz")["logits"]
        core = 0 if bundle.name.endswith("dla") else None
        content = (bundle / "engine/model.engine").read_bytes()
        with Runner(tensorrt, content, (), core) as runner:
            rows = [
                runner.run({"image": samples[i : i + 1]})["logits"] for i in range(len(samples))
            ]
        assert np.array_equal(np.concatenate(rows), judged)

    def test_the_stored_graph_is_the_twin_and_the_sent_one_float(self, bundle: Path) -> None:
        """Reports and ladders read Q/DQ, the device gets a cache; neither carries anything else."""
        twin = onnx.load(bundle / "model/quantized.onnx")
        sent = onnx.load(bundle / "device/model.onnx")
        assert any(node.op_type == "QuantizeLinear" for node in twin.graph.node)
        assert not any(node.op_type == "QuantizeLinear" for node in sent.graph.node)
        assert not twin.metadata_props and not sent.metadata_props


@pytest.mark.slow
@pytest.mark.parametrize(("version", "sm", "target"), DEVICES)
def test_the_device_builds_what_the_host_would_send(
    version: str, sm: int, target: str, build: Build, tmp_path: Path
) -> None:
    """One calibration: the same cache and layer list, whether the device is here or not."""
    assert build(tmp_path / "sent", target, "--effort", "fast") == 0
    told: list[Implicit] = []
    kept = carried.carried
    with (
        installed(version, gpu=jetson(sm), memory="cuda-python"),
        pytest.MonkeyPatch.context() as m,
    ):
        m.setattr("deploy.nvidia.dialect.carried", lambda x: told.append(x) or kept(x))
        assert build(tmp_path / "here", target, "--effort", "fast") == 0
    sent = {p.name: p.read_bytes() for p in (tmp_path / "sent/device").iterdir() if p.is_file()}
    for name in sent:
        if name.startswith(("calibration", "layer_precisions", "model")):
            assert (tmp_path / "here/device" / name).read_bytes() == sent[name]
    # the engine of this machine has no kernels of ours
    cache = sent.get("calibration_plain.cache", sent["calibration.cache"])
    assert told[-1].cache(version).encode() == cache


@pytest.mark.parametrize(("version", "sm", "target"), DEVICES)
def test_int8_that_is_slower_is_not_shipped(
    version: str, sm: int, target: str, build: Build, tmp_path: Path
) -> None:
    gpu = jetson(sm)
    gpu.kernel_ms = {"int8": 0.5}
    with installed(version, gpu=gpu, memory="cuda-python"):
        assert build(tmp_path / "bundle", target) == 0
    choice = read(tmp_path / "bundle", "precision.json")
    assert choice["chosen"] in ("fp16", "fp32")
    assert "no INT8 engine that passes is faster" in choice["reason"]
    device = read(tmp_path / "bundle", "device/manifest.json")
    assert (device["precision"], device["quantization"]) == (choice["chosen"], "none")


@pytest.mark.slow
def test_int8_that_is_faster_is(build: Build, tmp_path: Path) -> None:
    gpu = jetson(72)
    gpu.kernel_ms = {"half": 0.5, "float": 1.0}
    with installed("8.5.2", gpu=gpu, memory="cuda-python"):
        assert build(tmp_path / "bundle", "xavier") == 0
    assert read(tmp_path / "bundle", "precision.json")["chosen"] == "all"


@pytest.mark.slow
def test_layers_go_back_to_float_where_a_gate_asks(build: Build, tmp_path: Path) -> None:
    with installed("8.5.2", gpu=jetson(72), memory="cuda-python"):
        assert build(tmp_path / "bundle", "xavier", "--min-sqnr-db", 36) == 0
    choice = read(tmp_path / "bundle", "precision.json")
    assert "back in float" in choice["chosen"]
    float_now = choice["kept_float"]
    listed = (tmp_path / "bundle/device/layer_precisions.txt").read_text()
    assert float_now and not any(f"{name}:int8" in listed for name in float_now)


class TestRefused:
    """What makes it another engine than planned ends the build, in a sentence."""

    def test_a_cache_that_is_ignored(
        self,
        build: Build,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """As TensorRT does with a first line that it doesn't know: without a word."""
        monkeypatch.setattr("deploy.nvidia.implicit._ALGORITHM", "SomethingElse")
        with installed("8.5.2", gpu=jetson(72), memory="cuda-python"):
            assert build(tmp_path / "bundle", "xavier-dla") == 1
        said = capsys.readouterr().err
        assert "the calibration cache was ignored" in said
        assert "TRT-8502-SomethingElse" in said
        assert not (tmp_path / "bundle").exists()

    @pytest.mark.parametrize(
        ("version", "sm", "target", "effort"),
        [*((*device, "fast") for device in DEVICES), (*DEVICES[0], "default")],
    )
    def test_a_tensor_without_a_scale(
        self,
        version: str,
        sm: int,
        target: str,
        effort: str,
        build: Build,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        kept = carried.carried

        def without_one(told: Implicit) -> Any:
            first = next(iter(told.scales))
            scales = {name: x for name, x in told.scales.items() if name != first}
            return kept(Implicit(told.model, scales, told.precisions))

        monkeypatch.setattr("deploy.nvidia.dialect.carried", without_one)
        with installed(version, gpu=jetson(sm), memory="cuda-python"):
            assert build(tmp_path / "bundle", target, "--effort", effort) == 1
        said = capsys.readouterr().err
        assert "of an INT8 layer has no scale" in said and "--keep-float" in said
        assert not (tmp_path / "bundle").exists()

    def test_a_dla_that_takes_nothing(
        self,
        build: Build,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(
            "doubles.config_double.IBuilderConfig._dla_takes", lambda self, layer: False
        )
        with installed("8.5.2", gpu=jetson(72), memory="cuda-python"):
            assert build(tmp_path / "bundle", "xavier-dla") == 1
        assert "no layer runs on the DLA, which this engine is for" in capsys.readouterr().err

    def test_a_dla_that_isnt_there(
        self, build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with installed("8.5.2", gpu=jetson(72, dla_cores=0), memory="cuda-python"):
            assert build(tmp_path / "bundle", "xavier-dla") == 1
        assert "DLA core 0, and TensorRT 8.5.2 sees 0 here" in capsys.readouterr().err


def test_another_patch_release_gets_a_cache_of_its_own(build: Build, tmp_path: Path) -> None:
    """JetPack's next: the folder's cache would be ignored there, the build's own isn't."""
    with installed("8.5.3", gpu=jetson(72), memory="cuda-python"):
        assert build(tmp_path / "bundle", "xavier-dla", "--effort", "fast") == 0
    assert read(tmp_path / "bundle", "report.json")["device"]["rung"] == "device"
    cache = (tmp_path / "bundle/device/calibration.cache").read_text()
    assert cache.startswith("TRT-8502-")


def test_a_jetson_without_tensorrts_module_still_gets_its_folder(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JetPack's module is of another Python than ours: finish.py runs there by itself."""
    with installed("8.5.2", gpu=jetson(72)) as here:
        del here
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(__import__("sys").modules, "tensorrt", None)
            assert build(tmp_path / "bundle", "xavier", "--effort", "fast") == 0
    device = read(tmp_path / "bundle", "report.json")["device"]
    assert device["rung"] != "device" and "tensorrt can't be imported" in device["absent"]
    assert "finish.py" in capsys.readouterr().out
