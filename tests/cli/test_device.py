"""Builds for NVIDIA devices on a machine without one: sent, finished against the test double of
TensorRT, and taken back."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from doubles import installed
from helpers import model_from
from onnx import numpy_helper

from calibrators.ranges import activation_params
from deploy.artifacts.bundle import Bundle
from deploy.artifacts.ranges import Ranges
from deploy.cli import run
from deploy.on_device.calibration_cache import cache_scales
from deploy.on_device.finish_plan import listed_precisions

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
DATA = ("--data", DIGITS / "calib.npz", "--eval-data", DIGITS / "test.npz")
# as tests/cli/conftest.py gives it
Deploy = Callable[..., Any]


def built(folder: Path, target: str, *more: object) -> Path:
    """A bundle of the digits network, equalized for nobody so that all targets calibrate alike."""
    flags = ["--int8", "--effort", "fast", *DATA, "-o", folder, *more]
    words = ["build", DIGITS / "digits.onnx", "--target", target, *flags]
    assert run([str(word) for word in words]) == 0
    return folder


@pytest.fixture(scope="module")
def xavier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("xavier") / "bundle", "xavier")


@pytest.fixture
def fresh(xavier: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(xavier, tmp_path / "bundle"))


@pytest.fixture
def finish() -> Iterator[Callable[..., Path]]:
    """finish(folder, version, sm) -> folder: runs the folder's own finish.py with the double."""
    made: list[str] = []

    def call(folder: Path, version: str = "8.5.2", sm: int = 72, code: int = 0) -> Path:
        name = f"finish_of_{len(made)}"
        made.append(name)
        spec = importlib.util.spec_from_file_location(name, folder / "finish.py")
        assert spec is not None and spec.loader is not None
        script: ModuleType = importlib.util.module_from_spec(spec)
        sys.modules[name] = script
        spec.loader.exec_module(script)
        with installed(version, sm=sm):
            # the double runs no CUDA: its engines are of the graph without kernels of ours
            assert script.main(["--runs", "3", "--without-plugins"]) == code
        return folder

    yield call
    for name in made:
        del sys.modules[name]


def sent(bundle: Path, tmp_path: Path) -> Path:
    """device/ as it lies on the device."""
    return Path(shutil.copytree(bundle / "device", tmp_path / "on-the-device"))


class TestBuild:
    def test_the_bundle_is_complete_and_says_in_a_line_what_remains(
        self, deploy: Deploy, tmp_path: Path
    ) -> None:
        words = ("--target", "xavier", "--int8", *DATA, "-o", tmp_path / "b", "--json")
        ran = deploy("build", DIGITS / "digits.onnx", *words)
        assert ran.code == 0
        (remains,) = [line for line in ran.err.splitlines() if line.startswith("remains")]
        assert "finish.py" in remains and "deploy import" in remains
        assert not [line for line in ran.err.splitlines() if line.startswith("latency")]
        folder = tmp_path / "b/device"
        names = {p.relative_to(folder).as_posix() for p in files(folder)}
        assert {n for n in names if not n.startswith("plugins/")} == {
            *("manifest.json", "finish.py"),
            *("model.onnx", "calibration.cache", "layer_precisions.txt"),
            *("model_plain.onnx", "calibration_plain.cache", "layer_precisions_plain.txt"),
            *(f"parity/{name}.npz" for name in ("samples", "reference", "simulated")),
        }
        assert {
            *("plugins/CMakeLists.txt", "plugins/tensorrt/v2.h"),
            *("plugins/shuffle_depthwise/kernel.cu", "plugins/shuffle_depthwise/trt_v2.cpp"),
        } <= names
        assert not [n for n in names if n.endswith(("ov.cpp", ".py")) and n != "finish.py"]
        assert deploy("verify", tmp_path / "b").code == 0
        assert not (tmp_path / "b" / "engine").exists()

    def test_the_report_claims_no_more_than_was_shown(self, xavier: Path) -> None:
        content = json.loads((xavier / "report.json").read_text())
        assert content["device"]["rung"] != "device"
        assert content["summary"]["on_target"] is False
        assert content["measured"]["latency"] == {}
        page = (xavier / "report.html").read_text()
        assert "simulated here" in page and "Remains: copy device/" in page
        assert "The simulation against the untouched model" in page
        assert "% to simulation" in page and "% to engine" not in page

    def test_the_manifest_describes_what_is_sent(self, xavier: Path) -> None:
        device = Bundle(
            xavier / "device", json.loads((xavier / "device/manifest.json").read_text())
        )
        assert device.problems() == []
        sent = device.manifest
        assert sent["nvidia"]["versions"] == ["8.5.2"]
        assert (sent["quantization"], sent["rest"], sent["precision"]) == (
            "implicit",
            "fp16",
            "int8",
        )
        assert sent["inputs"][0]["shape"] == [1, 1, 8, 8]
        assert sent["profiles"] == {}
        told = sent["parity"]
        assert 15 < told["rounding_sqnr_db"]["logits"] < told["simulated_sqnr_db"]["logits"]

    def test_the_same_command_gives_the_same_bytes(self, xavier: Path, tmp_path: Path) -> None:
        again = built(tmp_path / "again", "xavier")
        for one in files(xavier / "device"):
            other = again / "device" / one.relative_to(xavier / "device")
            assert one.read_bytes() == other.read_bytes(), one.name

    def test_a_dynamic_batch_has_a_profile(self, tmp_path: Path) -> None:
        bundle = built(tmp_path / "b", "orin", "--batch", "dynamic")
        sent = json.loads((bundle / "device/manifest.json").read_text())
        assert sent["profiles"]["image"] == {
            "min": [1, 1, 8, 8],
            "opt": [8, 1, 8, 8],
            "max": [32, 1, 8, 8],
        }

    def test_what_the_device_can_not_build_is_said(self, deploy: Deploy, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        text = "g (float[1,6] x) => (float[a] y) { h = Relu(x) y = Unique(h) }"
        model_from(text).save(path)
        words = ("build", path, "--fp32", "-o", tmp_path / "b", "--target")
        ran = deploy(*words, "xavier")
        assert ran.code == 0
        said = (
            "no engine comes of it on xavier, as `deploy doctor` says: Unique (Unique -> y) has no"
        )
        assert said in ran.err
        cautions = json.loads((tmp_path / "b/report.json").read_text())["summary"]["cautions"]
        assert any(said in text for text in cautions)
        # what this machine's own compiler takes or refuses needs no foretelling
        ran = deploy("build", path, "--fp32", "-o", tmp_path / "c", "--target", "cpu")
        assert "no engine comes of it" not in ran.err

    def test_float_engines_are_sent_too(self, deploy: Deploy, tmp_path: Path) -> None:
        words = ("--target", "xavier", "--fp16", *DATA[2:], "-o", tmp_path / "b")
        assert deploy("build", DIGITS / "digits.onnx", *words).code == 0
        sent = json.loads((tmp_path / "b/device/manifest.json").read_text())
        assert (sent["quantization"], sent["precision"]) == ("none", "fp16")
        assert "calibration.cache" not in sent["files"]

    def test_weights_alone_as_integers_are_refused_at_once(
        self, deploy: Deploy, tmp_path: Path
    ) -> None:
        words = ("--target", "orin", "--int8-weights", "-o", tmp_path / "b")
        ran = deploy("build", DIGITS / "digits.onnx", *words)
        assert ran.code == 2
        assert "give --int8 or --fp16" in ran.errors[0]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, xavier: Path) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("dialects")
    return {"xavier": xavier, **{name: built(root / name, name) for name in ("orin", "cpu")}}


class TestPlugins:
    def test_cache_and_list_name_the_operators_of_the_graph_they_go_with(
        self, xavier: Path
    ) -> None:
        for suffix in ("", "_plain"):
            graph = onnx.load(xavier / f"device/model{suffix}.onnx").graph
            text = (xavier / f"device/layer_precisions{suffix}.txt").read_text()
            listed = listed_precisions(text)
            names = {node.name for node in graph.node}
            assert set(listed) - {"*"} <= names
            cache = cache_scales((xavier / f"device/calibration{suffix}.cache").read_text())
            values = {v.name for v in graph.input} | {o for n in graph.node for o in n.output}
            assert set(cache) <= values
            own = [node for node in graph.node if node.domain == "onnx_deploy"]
            assert bool(own) == (suffix == "")
            for node in own:
                if node.op_type == "ShuffleDepthwise":
                    assert listed[node.name] == "int8"
                    assert {node.input[0], node.output[0]} <= set(cache)

    def test_a_dla_has_none(self, tmp_path: Path) -> None:
        bundle = built(tmp_path / "b", "xavier-dla")
        assert not (bundle / "device/plugins").exists()
        assert not (bundle / "device/model_plain.onnx").exists()


class TestSameScales:
    """One calibration, three dialects, one set of numbers."""

    def test_the_ranges_are_the_same(self, bundles: dict[str, Path]) -> None:
        found = {n: Ranges.load(b / "ranges.json").tensors for n, b in bundles.items()}
        assert len(found["cpu"]) > 20
        for name, wanted in found["cpu"].items():
            assert found["xavier"][name].range == found["orin"][name].range == wanted.range

    def test_cache_and_qdq_carry_the_same_scales(self, bundles: dict[str, Path]) -> None:
        cache = cache_scales((bundles["xavier"] / "device/calibration_plain.cache").read_text())
        written = activations(bundles["orin"] / "device/model_plain.onnx")
        ranges = Ranges.load(bundles["cpu"] / "ranges.json").tensors
        shared = set(cache) & set(written)
        assert len(shared) >= 12
        for name in shared:
            assert cache[name] == written[name], name
            assert cache[name] == activation_params(ranges[name].range, "int8", True).scale

    def test_the_ir_on_this_cpu_has_the_ranges_of_the_cache(self, bundles: dict[str, Path]) -> None:
        ranges = Ranges.load(bundles["xavier"] / "ranges.json").tensors
        found = quantizers(bundles["cpu"] / "engine/model.xml")
        written = set(found) & set(ranges)
        assert len(written) >= 10
        for name in written:
            params = activation_params(ranges[name].range, "uint8", False)
            steps, zero = found[name]
            assert steps == pytest.approx(float(params.scale), rel=1e-6), name
            assert zero == int(params.zero_point), name


class TestRoundTrip:
    def test_what_the_device_found_is_in_the_report(
        self, deploy: Deploy, fresh: Path, tmp_path: Path, finish: Callable[..., Path]
    ) -> None:
        came_back = finish(sent(fresh, tmp_path))
        ran = deploy("import", fresh, came_back, "--json")
        assert ran.code == 0, ran.err
        assert "proven     ran on the device" in ran.err
        assert ran.json["results"]["device"]["proven"] == "ran on the device"
        assert deploy("verify", fresh).code == 0
        content = json.loads((fresh / "report.json").read_text())
        assert content["device"]["rung"] == "device"
        assert content["layers"] == content["device"]["report"]["layers"] != []
        page = (fresh / "report.html").read_text()
        assert "What the device found" in page and "Remains" not in page
        assert (fresh / "engine/model.engine").read_bytes() == (
            came_back / "model.engine"
        ).read_bytes()

    def test_a_folder_copied_back_over_what_was_sent_is_taken(
        self, deploy: Deploy, fresh: Path, finish: Callable[..., Path]
    ) -> None:
        finish(fresh / "device")
        assert deploy("import", fresh, fresh / "device").code == 0
        assert deploy("verify", fresh).code == 0

    def test_another_bundles_device_is_refused_with_both_values(
        self, deploy: Deploy, fresh: Path, tmp_path: Path, finish: Callable[..., Path]
    ) -> None:
        other = built(tmp_path / "other", "xavier", "--samples", "40")
        came_back = finish(sent(other, tmp_path))
        before = (fresh / "manifest.json").read_bytes()
        ran = deploy("import", fresh, came_back)
        assert ran.code == 1
        hashes = [
            json.loads((b / "device/manifest.json").read_text())["manifest_sha256"][:12]
            for b in (other, fresh)
        ]
        assert all(h in ran.errors[0] for h in hashes)
        assert (fresh / "manifest.json").read_bytes() == before

    def test_an_engine_that_changed_on_the_way_is_refused(
        self, deploy: Deploy, fresh: Path, tmp_path: Path, finish: Callable[..., Path]
    ) -> None:
        came_back = finish(sent(fresh, tmp_path))
        (came_back / "model.engine").write_bytes(b"another")
        ran = deploy("import", fresh, came_back)
        assert ran.code == 1
        assert "model.engine has sha256" in ran.errors[0]

    def test_a_manifest_that_changed_or_stayed_there_is_refused(
        self, deploy: Deploy, fresh: Path, tmp_path: Path, finish: Callable[..., Path]
    ) -> None:
        came_back = finish(sent(fresh, tmp_path))
        path = came_back / "manifest.json"
        path.write_bytes(path.read_bytes().replace(b"Xavier", b"Orin"))
        ran = deploy("import", fresh, came_back)
        assert ran.code == 1
        assert "manifest.json has sha256" in ran.errors[0] and "it was" in ran.errors[0]
        path.unlink()
        ran = deploy("import", fresh, came_back)
        assert ran.code == 1
        assert "manifest.json is missing" in ran.errors[0]

    def test_a_bundle_that_changed_is_refused(
        self, deploy: Deploy, fresh: Path, tmp_path: Path, finish: Callable[..., Path]
    ) -> None:
        came_back = finish(sent(fresh, tmp_path))
        (fresh / "ranges.json").write_text("{}")
        ran = deploy("import", fresh, came_back)
        assert ran.code == 1
        assert "ranges.json: changed" in ran.errors[0]

    def test_another_gpu_does_not_finish(
        self, deploy: Deploy, fresh: Path, tmp_path: Path, finish: Callable[..., Path]
    ) -> None:
        folder = finish(sent(fresh, tmp_path), sm=87, code=3)
        ran = deploy("import", fresh, folder)
        assert ran.code == 3
        assert "8.7" in ran.errors[0] and "7.2" in ran.errors[0]

    def test_a_missed_gate_on_the_device_is_exit_3(
        self, deploy: Deploy, fresh: Path, tmp_path: Path, finish: Callable[..., Path]
    ) -> None:
        came_back = finish(sent(fresh, tmp_path))
        path = came_back / "device_report.json"
        report = json.loads(path.read_text())
        path.write_text(json.dumps(report | {"status": "failed", "problems": ["7.1 dB, 8 wanted"]}))
        ran = deploy("import", fresh, came_back)
        assert ran.code == 3
        assert "7.1 dB, 8 wanted" in ran.errors[0]

    def test_a_bundle_for_this_machine_has_nothing_to_import(
        self, deploy: Deploy, tmp_path: Path
    ) -> None:
        bundle = built(tmp_path / "cpu", "cpu")
        ran = deploy("import", bundle, tmp_path)
        assert ran.code == 1
        assert "needs no other device" in ran.errors[0]


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def activations(path: Path) -> dict[str, np.float32]:
    """Scale per activation of a Q/DQ graph."""
    graph = onnx.load(path).graph
    stored = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    return {
        node.input[0]: np.float32(stored[node.input[1]])
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored
    }


def quantizers(path: Path) -> dict[str, tuple[float, int]]:
    """Per tensor of an OpenVINO IR that goes through FakeQuantize: size of a step, zero point."""
    import openvino as ov

    found = {}
    for op in ov.Core().read_model(path).get_ordered_ops():
        if op.get_type_name() != "FakeQuantize":
            continue
        low, high = (float(values(op, i)) for i in (1, 2))
        step = (high - low) / 255
        for name in op.input(0).get_source_output().get_names():
            found[name] = (step, round(-low / step))
    return found


def values(op: Any, index: int) -> np.ndarray:
    node = op.input(index).get_source_output().get_node()
    return np.asarray(node.get_data()).reshape(-1)[0]


@pytest.fixture(scope="module")
def h100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("h100") / "bundle"
    words = ["build", DIGITS / "digits.onnx", "--target", "h100", "--fp8", *DATA, "-o", folder]
    assert run([str(word) for word in words]) == 0
    return folder


class TestFp8:
    def test_the_graph_that_is_sent_quantizes_to_float8(self, h100: Path) -> None:
        manifest = json.loads((h100 / "device/manifest.json").read_text())
        kept = ("precision", "quantization", "rest")
        assert [manifest[key] for key in kept] == ["fp8", "explicit", "fp16"]
        graph = onnx.load(h100 / "device/model.onnx").graph
        codes = {w.name: w.data_type for w in graph.initializer}
        found = [n for n in graph.node if n.op_type == "QuantizeLinear"]
        assert found and all(codes[n.input[2]] == onnx.TensorProto.FLOAT8E4M3FN for n in found)
        assert len(manifest["quantized_layers"]) == 3
        assert min(manifest["parity"]["rounding_sqnr_db"].values()) > 20

    @pytest.mark.parametrize("version", ["10.16.0", "11.4.0"])
    def test_finish_builds_it_and_the_host_takes_it_in(
        self, h100: Path, finish: Callable[..., Path], tmp_path: Path, version: str
    ) -> None:
        bundle = Path(shutil.copytree(h100, tmp_path / "bundle"))
        folder = finish(sent(bundle, tmp_path), version, 90)
        report = json.loads((folder / "device_report.json").read_text())
        assert report["status"] == "ok"
        assert report["int8"]["layers_int8"] == 3 and report["int8"]["not_int8"] == []
        assert run(["import", str(bundle), str(folder)]) == 0
        page = (bundle / "report.html").read_text()
        assert "3 layers run in FP8" in page and "FP8 as Q/DQ in the graph" in page

    def test_the_report_says_simulated_and_fp8(self, h100: Path) -> None:
        content = json.loads((h100 / "report.json").read_text())
        assert content["summary"]["precision"] == "fp8"
        assert not content["choice"]["measured_here"]
        page = (h100 / "report.html").read_text()
        assert "3 of 13 layers are FP8 in the graph" in page and "simulated" in page
        types = {node["type"] for node in content["graph_map"]["nodes"]}
        assert "fp8" in types and "int8" not in types and "fp32" not in types

    def test_the_race_and_the_roofline_predict_the_same_time(self, h100: Path) -> None:
        content = json.loads((h100 / "report.json").read_text())
        (raced,) = (r for r in content["measured"]["tried"]["tried"] if r["name"] == "all")
        (device,) = content["roofline"]["built"]["targets"].values()
        assert device["precisions"]["fp8"]["ms"] == pytest.approx(raced["predicted_ms"], rel=1e-9)

    def test_a_gpu_without_it_is_refused(self, deploy: Deploy, tmp_path: Path) -> None:
        found = deploy("build", DIGITS / "digits.onnx", "--target", "a100", "--fp8", *DATA)
        assert found.code == 2 and "fp8 is not offered by target 'a100'" in found.err
