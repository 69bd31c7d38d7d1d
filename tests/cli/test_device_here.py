"""A build for an NVIDIA device on that very device: TensorRT, as the test double, builds, runs and
times the engines here, and device/ is still written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from doubles import Gpu, installed
from helpers import model_from, weight

from deploy.cli import run
from deploy.on_device.trt_run import Runner

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
RNG = np.random.default_rng(0)
DATA = ("--data", DIGITS / "calib.npz", "--eval-data", DIGITS / "test.npz")


@pytest.fixture(scope="module")
def here() -> Iterator[Any]:
    """An Orin with its TensorRT."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.nvidia.device.no_gpu", lambda: "")
        with installed("10.3.0", gpu=Gpu(87, "Orin", driver=12060), memory="cuda-python") as made:
            yield made


def built(folder: Path, *more: object) -> Path:
    words = ("build", DIGITS / "digits.onnx", "--target", "orin", "--int8", *DATA, "-o", folder)
    assert run([str(word) for word in (*words, *more)]) == 0
    return folder


@pytest.fixture(scope="module")
def raced(here: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose placement was chosen by speed."""
    return built(tmp_path_factory.mktemp("orin") / "raced")


@pytest.fixture(scope="module")
def int8(here: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that is INT8 whatever is faster: times on a double decide nothing."""
    return built(tmp_path_factory.mktemp("orin") / "int8", "--effort", "fast")


def content(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "report.json").read_text())
    return found


def test_candidates_race_on_the_gpu(raced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choice = json.loads((raced / "precision.json").read_text())
    assert choice["measured_here"] is True
    measured = content(raced)["measured"]["latency"]
    assert len(measured) > 1
    assert all(row["median_ms"] > 0 for row in measured.values())


@pytest.mark.parametrize("bundle", ["raced", "int8"])
def test_the_bundle_has_the_engine_and_the_folder_for_the_device(
    bundle: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder: Path = request.getfixturevalue(bundle)
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"engine/model.engine", "engine/engine.json"} <= names
    assert {"device/finish.py", "device/manifest.json", "device/model.onnx"} <= names
    assert not (folder / "simulation").exists()
    assert run(["verify", str(folder)]) == 0


def test_the_report_says_that_it_ran_on_the_device(int8: Path) -> None:
    found = content(int8)
    assert (found["device"]["rung"], found["device"]["absent"]) == ("device", "")
    assert found["device"]["rung_words"] == "ran on the device"
    assert found["summary"]["on_target"] is True
    assert set(found["measured"]["latency"]) == {"fp32", "fp16", "int8"}
    kinds = [layer["precision"] for layer in found["layers"]]
    assert kinds.count("int8") > 10
    page = (int8 / "report.html").read_text()
    assert "ran on the device" in page
    assert "Remains: copy device/" not in page and "The device is not here" not in page


def test_kernels_of_ours_are_sent_and_not_built_here(int8: Path) -> None:
    sent = json.loads((int8 / "device/manifest.json").read_text())
    assert [row["op"] for row in sent["plugins"]] == ["ShuffleDepthwise"]
    assert "plugins/shuffle_depthwise/trt_v3.cpp" in sent["files"]
    for file, wanted in (("model.onnx", True), ("model_plain.onnx", False)):
        graph = onnx.load(int8 / "device" / file).graph
        assert any(node.domain == "onnx_deploy" for node in graph.node) == wanted
    assert b"ShuffleDepthwise" not in (int8 / "engine/model.engine").read_bytes()


def test_sizes_that_stay_free_lie_around_the_samples(here: Any, tmp_path: Path) -> None:
    """An optimization profile has to hold what the samples have: 20 x 300 here."""
    text = """g (float[N,3,H,W] x) => (float[N,6] y) {
        c = Conv <pads = [1, 1, 1, 1]> (x, w)
        p = GlobalAveragePool (c)
        y = Flatten (p)
    }"""
    model_from(text, {"w": weight(6, 3, 3, 3)}).save(tmp_path / "free.onnx")
    np.savez(tmp_path / "data.npz", x=RNG.normal(size=(12, 3, 20, 300)).astype(np.float32))
    words = ["build", tmp_path / "free.onnx", "--target", "orin", "--fp16", "--shape", "x=1,3,?,?"]
    folder = tmp_path / "bundle"
    assert run([str(w) for w in (*words, "--data", tmp_path / "data.npz", "-o", folder)]) == 0
    with Runner(here.trt, (folder / "engine/model.engine").read_bytes()) as runner:
        assert runner.run({"x": RNG.normal(size=(1, 3, 10, 900)).astype(np.float32)})[
            "y"
        ].shape == (1, 6)
    sent = json.loads((folder / "device/manifest.json").read_text())
    assert sent["profiles"]["x"]["max"] == [1, 3, 80, 1200]


def test_the_stored_engine_gives_what_was_judged(int8: Path, here: Any) -> None:
    samples = np.load(int8 / "parity/samples.npz")["image"]
    judged = np.load(int8 / "parity/engine.npz")["logits"]
    with Runner(here.trt, (int8 / "engine/model.engine").read_bytes()) as runner:
        rows = [runner.run({"image": samples[i : i + 1]})["logits"] for i in range(len(samples))]
    assert np.array_equal(np.concatenate(rows), judged)


@pytest.mark.slow
def test_int8_and_fp8_are_compared_by_turns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is asked for by its flag, and `deploy bench` says by the GPU's clock which is faster."""
    monkeypatch.setattr("deploy.nvidia.device.no_gpu", lambda: "")
    gpu = Gpu(90, "H100")
    gpu.kernel_ms = {"fp8": 0.1}
    names = [str(tmp_path / precision) for precision in ("int8", "fp8")]
    with installed("10.16.1", gpu=gpu, memory="cuda-python"):
        for name in names:
            words = ["build", DIGITS / "digits.onnx", "--target", "h100", f"--{Path(name).name}"]
            words += [*DATA, "--effort", "fast", "-o", name]
            assert run([str(word) for word in words]) == 0
        capsys.readouterr()
        assert run(["bench", *names, "--rounds", "20", "--json"]) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)["candidates"]
    assert {row["of_device"] for row in rows.values()} == {True}
    kernels = {n: len(content(Path(n))["layers"]) for n in names}
    assert rows[names[0]]["median_ms"] == pytest.approx(0.25 * kernels[names[0]])
    assert rows[names[1]]["median_ms"] < 0.25 * kernels[names[1]]
    assert "by the GPU's own clock" in said.err
