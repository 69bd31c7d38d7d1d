"""OpenVINO: the same IR every time, half the weights as fp16, and errors that say what to do."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import conv, model, node, normal, quantized, residual, samples_of

from deploy.artifacts.model import Model
from deploy.backends import ov
from deploy.errors import BuildError, MissingBackendError
from deploy.metrics import sqnr_db
from deploy.target import EngineSettings

SETTINGS = EngineSettings(inference_precision={"fp32": "f32", "int8": "f32"})
HERE = Path(__file__).resolve().parents[1]


def saved(network: Model, folder: Path, precision: str = "fp32") -> dict[str, bytes]:
    folder.mkdir(parents=True)
    with ov.build(network, SETTINGS, precision) as engine:
        engine.save(folder)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


class TestSameFiles:
    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    def test_after_other_models_were_built(self, precision: str, tmp_path: Path) -> None:
        network = quantized(residual()) if precision == "int8" else residual()
        first = saved(network, tmp_path / "a", precision)
        saved(conv(), tmp_path / "other", "fp16")
        saved(quantized(conv()), tmp_path / "another", "int8")
        assert saved(network, tmp_path / "b", precision) == first
        assert set(first) == {"model.xml", "model.bin", "engine.json"}

    def test_in_a_fresh_process(self, tmp_path: Path) -> None:
        saved(conv(), tmp_path / "before")
        here = {p: saved(quantized(residual()), tmp_path / p, p) for p in ("int8", "fp16")}
        code = (
            "from pathlib import Path; import sys; sys.path.insert(0, sys.argv[1])\n"
            "from tiny_models import quantized, residual\n"
            "from deploy.backends import ov\n"
            "from deploy.target import EngineSettings\n"
            "settings = EngineSettings(inference_precision={'fp32': 'f32', 'int8': 'f32'})\n"
            "for precision in ('int8', 'fp16'):\n"
            "    folder = Path(sys.argv[2], precision); folder.mkdir(parents=True)\n"
            "    ov.build(quantized(residual()), settings, precision).save(folder)\n"
        )
        command = [sys.executable, "-c", code, str(HERE), str(tmp_path / "fresh")]
        subprocess.run(command, check=True, timeout=120)
        for precision, files in here.items():
            folder = tmp_path / "fresh" / precision
            assert {p.name: p.read_bytes() for p in folder.iterdir()} == files


def wide() -> Model:
    return model(
        [node("MatMul", ["x", "w"], ["y"])],
        {"x": ["N", 64]},
        {"y": ["N", 96]},
        {"w": normal(64, 96)},
    )


class TestFloat16:
    def test_halves_the_weights_on_disk(self, tmp_path: Path) -> None:
        full, half = (saved(wide(), tmp_path / p, p) for p in ("fp32", "fp16"))
        assert len(full["model.bin"]) >= 64 * 96 * 4
        assert len(half["model.bin"]) / len(full["model.bin"]) == pytest.approx(0.5, abs=0.01)

    def test_and_computes_the_same_but_for_the_rounding(self, tmp_path: Path) -> None:
        saved(wide(), tmp_path / "fp16", "fp16")
        feeds = {"x": normal(1, 64, seed=3)}
        with ov.load(tmp_path / "fp16", SETTINGS, "fp32") as engine:
            got = engine.run(feeds)["y"]
        assert 60 < sqnr_db(feeds["x"] @ normal(64, 96), got) < 90


class TestIr:
    def test_batch_is_fixed_in_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "e").mkdir()
        with ov.build(conv(), EngineSettings(batch=3), "fp32") as engine:
            assert engine.inputs[0].shape == (3, 3, 5, 7)
            assert engine.outputs[0].shape == (3, 4, 5, 7)
            engine.save(tmp_path / "e")
        with ov.load(tmp_path / "e", EngineSettings(batch=7), "fp32") as loaded:
            assert loaded.inputs[0].shape == (3, 3, 5, 7)
            with pytest.raises(BuildError, match=r"fed shape \[1, 3, 5, 7\]"):
                loaded.run({"x": normal(1, 3, 5, 7)})

    def test_int8_is_stored_as_int8(self, tmp_path: Path) -> None:
        network = quantized(wide())
        assert len(saved(network, tmp_path / "q", "int8")["model.bin"]) < 1.3 * 64 * 96

    def test_properties(self) -> None:
        settings = EngineSettings(
            threads=1, streams=1, performance_hint="THROUGHPUT", inference_precision={"fp32": "f32"}
        )
        with ov.build(conv(), settings, "fp32") as engine:
            found = engine.properties()
        assert {k: found[k] for k in found if k != "device_name"} == {
            "device": "CPU",
            "inference_precision": "f32",
            "threads": "1",
            "streams": "1",
            "performance_hint": "THROUGHPUT",
        }
        assert found["device_name"] == found["device_name"].strip() != ""

    def test_a_device_this_machine_lacks_is_built_on_the_cpu(self) -> None:
        with ov.build(conv(), EngineSettings(device="NPU"), "fp32") as engine:
            assert engine.properties()["device"] == "CPU"

    def test_layers_tell_operator_type_and_kernel(self) -> None:
        with ov.build(conv(), SETTINGS, "fp32") as engine:
            (layer,) = [la for la in engine.layers() if la.kind == "Convolution"]
        assert (layer.precision, layer.kernel.endswith("f32")) == ("f32", True)
        assert layer.fused_from

    def test_run_many_uses_every_stream(self) -> None:
        settings = EngineSettings(
            batch="dynamic", streams=2, performance_hint="THROUGHPUT", inference_precision={}
        )
        (sample,) = samples_of(conv(), 1)
        with ov.build(conv(), settings, "fp32") as engine:
            assert engine.properties()["streams"] == "2"
            engine.run_many(sample.feeds, 11)


class TestRefused:
    def test_a_graph_openvino_does_not_know(self) -> None:
        unknown = node("Whatever", ["x"], ["y"], domain="elsewhere")
        network = conv()
        proto = type(network.proto)()
        proto.CopyFrom(network.proto)
        proto.graph.node[0].CopyFrom(unknown)
        proto.opset_import.add(domain="elsewhere", version=1)
        reason = r"tiny: OpenVINO can't read the graph: .*Whatever"
        with pytest.raises(BuildError, match=reason) as caught:
            ov.build(Model(proto, "tiny"), SETTINGS, "fp32")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["model.xml", "model.bin"])
    @pytest.mark.parametrize("damage", ["gone", "cut", "noise"])
    def test_a_damaged_file(self, name: str, damage: str, tmp_path: Path) -> None:
        files = saved(residual(), tmp_path / "e")
        path = tmp_path / "e" / name
        if damage == "gone":
            path.unlink()
        elif damage == "cut":
            path.write_bytes(files[name][: len(files[name]) // 3])
        elif name == "model.xml":
            path.write_bytes(b"<net" + files[name][::-1])
        else:
            path.write_bytes(b"")
        with pytest.raises(BuildError, match=r"damaged engine: .*; build it again"):
            ov.load(tmp_path / "e", SETTINGS, "fp32")

    @pytest.mark.parametrize(
        "change",
        [
            {"inputs": 5},
            {"inputs": [{"name": "x"}]},
            {"inputs": [{"name": "x", "dtype": "no type", "shape": [1]}]},
            {"outputs": None},
        ],
    )
    def test_damaged_engine_json(self, change: dict[str, Any], tmp_path: Path) -> None:
        files = saved(residual(), tmp_path / "e")
        described = {**json.loads(files["engine.json"]), **change}
        (tmp_path / "e" / "engine.json").write_text(json.dumps(described))
        with pytest.raises(BuildError, match=r"damaged engine: .*; build it again"):
            ov.load(tmp_path / "e", SETTINGS, "fp32")

    def test_openvino_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "openvino":
                raise ImportError("No module named 'openvino'")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(ov, "_SHARED_CORE", [])
        monkeypatch.setattr(builtins, "__import__", without)
        reason = "OpenVINO isn't installed .*; pip install openvino"
        with pytest.raises(MissingBackendError, match=reason):
            ov.build(conv(), SETTINGS, "fp32")


def test_a_nan_in_the_feeds_comes_out_again() -> None:
    x = normal(1, 3, 5, 7)
    x[0, 0, 2, 3] = np.nan
    with ov.build(conv(), SETTINGS, "fp32") as engine:
        assert np.isnan(engine.run({"x": x})["y"]).any()
