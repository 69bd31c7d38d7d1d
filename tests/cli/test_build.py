"""`deploy build` from end to end: a real trained network, real labelled data, a real engine."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from deploy.artifacts.bundle import Bundle
from deploy.cli import run
from deploy.recipe import Recipe

Deploy = Callable[..., Any]
# which placement is the fastest, a clock decides: not here
SMALL = ("--samples", "16", "--eval-samples", "60", "--search-s", "0")


@dataclass(frozen=True)
class Built:
    folder: Path
    manifest: dict[str, Any]
    report: dict[str, Any]
    last: dict[str, Any]
    said: str
    command: list[str]


@pytest.fixture(scope="module")
def build(
    tmp_path_factory: pytest.TempPathFactory, digits: Path
) -> Callable[..., tuple[Path, list[str]]]:
    """build("--fp32", …) -> the bundle of a successful build of the digits, and its command."""

    def call(*flags: str) -> tuple[Path, list[str]]:
        folder = tmp_path_factory.mktemp("build") / "out"
        command = ["build", str(digits / "digits.onnx"), *flags, "-o", str(folder)]
        assert run(command) == 0
        return folder, command

    return call


@pytest.fixture(scope="module")
def data(digits: Path) -> tuple[str, ...]:
    return ("--data", str(digits / "calib.npz"), "--eval-data", str(digits / "test.npz"))


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory, digits: Path, data: tuple[str, ...]) -> Built:
    """The main job as the README gives it, once."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("int8") / "out"
    command = ["build", str(digits / "digits.onnx"), "--target", "cpu", "--int8", *data]
    command += ["--max-drop", "0.5", "--search-s", "0", "-o", str(folder), "--json"]
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        assert run(command) == 0
    manifest, report = (json.loads((folder / n).read_text()) for n in ("manifest.json", REPORT))
    last = json.loads(printed.getvalue())
    return Built(folder, manifest, report, last, said.getvalue(), command)


REPORT = "report.json"
FILES = {
    "engine/engine.json",
    "engine/model.bin",
    "engine/model.xml",
    "engine/settings.json",
    "model/fused.onnx",
    "model/quantized.onnx",
    "parity/engine.npz",
    "parity/parity.json",
    "parity/reference.npz",
    "parity/samples.npz",
    "parity/worst/engine.npz",
    "parity/worst/reference.npz",
    "parity/worst/samples.npz",
    "audit.json",
    "model/equalized.onnx",
    "model/uncorrected.onnx",
    "parity/ladder.json",
    "precision.json",
    "ranges.json",
    "report.html",
    "report.json",
}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def test_accuracy_survives_int8(int8: Built) -> None:
    task = int8.last["accuracy"]
    assert task["samples"] == 540
    assert task["reference_pct"] == pytest.approx(100 * 536 / 540, abs=1e-9)
    assert task["drop"] <= 0.5
    assert task["engine_pct"] == pytest.approx(task["reference_pct"] - task["drop"])
    # uint8 activations and int8 weights land near 34 dB; float would be far above, noise below
    assert 28 < int8.last["sqnr_db"] < 45


def test_what_is_printed(int8: Built) -> None:
    words = int8.said
    assert re.search(r"accuracy +fp32 99\.26 %, engine 9\d\.\d\d %, drop -?\d\.\d\d ± ", words)
    assert re.search(r"latency +.*bf16 \d+\.\d+ ms.*int8 \d+\.\d+ ms", words)
    assert f"report     {int8.folder / 'report.html'}" in words
    assert int8.last["bundle"] == str(int8.folder)
    assert set(int8.last["latency"]) == {"fp32", "bf16", "int8"}


def test_manifest_lists_every_file_with_its_hash(int8: Built) -> None:
    listed = int8.manifest["files"]
    assert set(listed) == FILES == set(files_of(int8.folder)) - {"manifest.json"}
    for name, entry in listed.items():
        path = int8.folder / name
        assert entry == {"sha256": sha256(path), "bytes": path.stat().st_size}, name


def test_manifest_says_where_it_all_came_from(int8: Built, digits: Path) -> None:
    manifest = int8.manifest
    assert (manifest["schema_version"], manifest["status"]) == (1, "ok")
    assert manifest["command"] == ["deploy", *int8.command]
    assert manifest["model"] == {"name": "digits", "sha256": sha256_of_proto(digits)}
    assert manifest["ranges_sha256"] == sha256(int8.folder / "ranges.json")
    assert all(re.fullmatch("[0-9a-f]{64}", h) for h in manifest["data"].values())
    assert len(set(manifest["data"].values())) == 2
    assert (manifest["target"], manifest["precision"]) == ("cpu", "int8")
    assert manifest["recipe"]["max_drop"] == 0.5
    assert {"onnx", "openvino", "onnxruntime", "numpy", "python"} <= set(manifest["tools"])
    assert "not installed" not in manifest["tools"].values()
    assert manifest["results"].items() <= {**int8.last}.items()


def sha256_of_proto(digits: Path) -> str:
    proto = onnx.load(digits / "digits.onnx")
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def test_verify_accepts_it_and_names_what_changed(
    int8: Built, deploy: Deploy, tmp_path: Path
) -> None:
    ran = deploy("verify", int8.folder, "--json")
    assert (ran.code, ran.json["problems"], ran.json["status"]) == (0, [], "ok")
    copy = tmp_path / "copy"
    shutil.copytree(int8.folder, copy)
    assert deploy("verify", copy).code == 0, "a bundle may be moved"
    content = bytearray((copy / "engine/model.bin").read_bytes())
    content[1000] ^= 1
    (copy / "engine/model.bin").write_bytes(content)
    (copy / "ranges.json").unlink()
    (copy / "engine/extra.txt").write_text("hello")
    ran = deploy("verify", copy, "--json")
    assert (ran.code, len(ran.errors)) == (1, 1)
    assert "3 files not as built" in ran.errors[0]
    named = [problem.split(":")[0] for problem in ran.json["problems"]]
    assert sorted(named) == ["engine/extra.txt", "engine/model.bin", "ranges.json"]


def test_verify_sees_an_edited_manifest(int8: Built, deploy: Deploy, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(int8.folder, copy)
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"max_drop": 0.5', '"max_drop": 0.6'))
    ran = deploy("verify", copy)
    assert ran.code == 1
    assert "manifest.json: changed" in ran.out


def test_report_tells_the_whole_story(int8: Built) -> None:
    report = int8.report
    stages = [row["stage"] for row in report["graph"]]
    assert stages == ["loaded", "simplified", "fused", "equalized", "quantized"]
    assert {d["stage"] for d in report["decisions"]} >= {"simplify", "fuse", "quantize"}
    assert all(d["reason"] for d in report["decisions"]), "a decision without a reason"
    assert report["parity"]["passed"] is True
    gates = {gate["name"]: gate for gate in report["parity"]["gates"]}
    assert gates["accuracy drop (points)"]["limit"] == 0.5
    assert report["layer_errors"]
    assert set(report["measured"]["latency"]) == {"fp32", "bf16", "int8"}
    html = (int8.folder / "report.html").read_text(encoding="utf-8")
    assert "<html" in html
    assert not re.search(r"""(src|<link[^>]* href)=["']https?://""", html), "opens offline"


def test_engine_opens_in_plain_openvino_with_the_same_numbers(int8: Built) -> None:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(int8.folder / "engine/model.xml", "CPU", settings)
    samples = np.load(int8.folder / "parity/samples.npz")["image"]
    stored = np.load(int8.folder / "parity/engine.npz")["logits"]
    assert samples.shape == (len(samples), 1, 8, 8)
    got = np.concatenate([compiled({"image": samples[i : i + 1]})[0] for i in range(len(samples))])
    # logits reach 10 and more; another number of threads may add up in another order
    np.testing.assert_allclose(got, stored, rtol=1e-5, atol=1e-4)


def test_stored_reference_is_the_untouched_model(int8: Built, digits: Path) -> None:
    session = onnxruntime.InferenceSession(digits / "digits.onnx")
    for place in ("parity", "parity/worst"):
        samples = np.load(int8.folder / place / "samples.npz")["image"]
        stored = np.load(int8.folder / place / "reference.npz")["logits"]
        got = np.concatenate([session.run(None, {"image": x[None]})[0] for x in samples])
        np.testing.assert_allclose(got, stored, rtol=1e-5, atol=1e-5)


def test_quantized_model_is_explicit_and_checked(int8: Built) -> None:
    proto = onnx.load(int8.folder / "model/quantized.onnx")
    onnx.checker.check_model(proto, full_check=True)
    weights = {i.name: i for i in proto.graph.initializer}
    made = {output: node for node in proto.graph.node for output in node.output}
    convs = [n for n in proto.graph.node if n.op_type == "Conv"]
    assert convs
    for conv in convs:
        data, weight = (made.get(conv.input[i]) for i in (0, 1))
        assert data is not None and data.op_type == "DequantizeLinear", conv.name
        assert weight is not None and weight.op_type == "DequantizeLinear", conv.name
        assert weights[weight.input[0]].data_type == onnx.TensorProto.INT8
        assert weights[weight.input[1]].dims[0] == weights[weight.input[0]].dims[0], "per channel"


def test_same_command_elsewhere_gives_the_same_bytes(
    int8: Built, build: Callable[..., Any], data: tuple[str, ...]
) -> None:
    again, _ = build(
        *("--target", "cpu", "--int8", *data, "--max-drop", "0.5", "--search-s", "0", "--json")
    )
    first, second = files_of(int8.folder), files_of(again)
    assert set(first) == set(second)
    differs = {name for name in first if first[name] != second[name]}
    assert differs <= {"manifest.json", "report.html", "report.json"}, differs
    report = json.loads(second["report.json"])
    own = {"measured", "command"}
    assert {k: v for k, v in report.items() if k not in own} == {
        k: v for k, v in int8.report.items() if k not in own
    }


@pytest.mark.parametrize(("precision", "floor_db"), [("fp32", 100), ("fp16", 25), ("bf16", 25)])
def test_float_builds(deploy: Deploy, here: Path, precision: str, floor_db: float) -> None:
    ran = deploy("build", "digits.onnx", f"--{precision}", "--data", "test.npz", "--json")
    if ran.code == 1 and precision == "bf16" and "it has no bf16" in ran.err:
        pytest.skip("this machine has no bf16")
    assert ran.code == 0, ran.err
    folder = Path(f"digits-cpu-{precision}")
    assert ran.json["bundle"] == str(folder), "the default name says what it is"
    assert ran.json["sqnr_db"] > floor_db
    assert ran.json["accuracy"]["drop"] <= 0.5
    assert list(ran.json["latency"])[-1:] and precision in ran.json["latency"]
    assert not (folder / "ranges.json").exists()
    assert not (folder / "model/quantized.onnx").exists()
    assert Bundle.load(folder).problems() == []
    half = (folder / "engine/model.bin").stat().st_size
    assert half < 200_000 if precision == "fp16" else half > 300_000


def test_without_data_noise_proves_arithmetic_and_says_so(deploy: Deploy, here: Path) -> None:
    outputs = []
    for folder in ("one", "two"):
        ran = deploy("build", "digits.onnx", "--fp32", "-o", folder, "--json")
        assert ran.code == 0
        assert ran.json["accuracy"] is None
        assert "seeded noise, as no data was given" in ran.json["evidence"][0]
        outputs.append(Path(folder, "parity/samples.npz").read_bytes())
    assert outputs[0] == outputs[1]


class TestGate:
    def test_missed_gate_keeps_the_evidence_and_the_earlier_bundle(
        self, deploy: Deploy, here: Path
    ) -> None:
        words = ("build", "digits.onnx", "--int8", "--data", "calib.npz", *SMALL, "-o", "out")
        assert deploy(*words).code == 0
        before = files_of(Path("out"))
        ran = deploy(*words, "--min-sqnr-db", "150", "--json")
        assert (ran.code, len(ran.errors)) == (3, 1)
        assert re.search(
            r"SQNR of 'logits' \(dB\) is 3\d\.\d\d, needs 150 \(.*\); the evidence is in "
            r"out\.failed, see report\.html",
            ran.errors[0],
        ), ran.errors[0]
        figures = json.loads(ran.out)
        assert (figures["bundle"], figures["passed"]) == ("out.failed", False)
        assert files_of(Path("out")) == before
        failed = Bundle.load(Path("out.failed"))
        assert failed.manifest["status"] == "parity failed"
        assert failed.manifest["results"]["passed"] is False
        assert failed.problems() == []
        assert {"parity/engine.npz", "parity/worst/samples.npz", "engine/model.xml"} <= set(
            failed.manifest["files"]
        )
        # the next good build takes the old evidence away, it would only mislead
        assert deploy(*words).code == 0
        assert not Path("out.failed").exists()

    def test_an_output_with_a_threshold_of_its_own(self, deploy: Deploy, here: Path) -> None:
        words = ("build", "digits.onnx", "--fp32", "-o", "out", "--outputs")
        ran = deploy(*words, "logits=300")
        assert ran.code == 3
        assert "needs 300 (recipe)" in ran.errors[0]
        ran = deploy(*words, "logitz=30")
        assert ran.code == 2
        assert "no such output (did you mean 'logits'?)" in ran.errors[0]

    def test_no_bundle_appears(self, deploy: Deploy, here: Path) -> None:
        ran = deploy("build", "digits.onnx", "--fp32", "--min-sqnr-db", "1e3", "-o", "out")
        assert ran.code == 3
        assert not Path("out").exists()
        assert Path("out.failed/manifest.json").is_file()

    def test_accuracy_gate(self, deploy: Deploy, here: Path) -> None:
        """Labels that the float model gets right and a coarse engine can't."""
        random = np.random.default_rng(11)
        # between the classes: noise images, labelled by the float model itself
        x = random.random((60, 1, 8, 8)).astype(np.float32)
        session = onnxruntime.InferenceSession("digits.onnx")
        labels = np.array([session.run(None, {"image": one[None]})[0].argmax() for one in x])
        np.savez("noise.npz", image=x, labels=labels)
        Path("coarse.toml").write_text('extends = "cpu"\n[quantization]\nweight_bits = 3\n')
        words = ("build", "digits.onnx", "--int8", "--target", "coarse.toml", "-o", "out")
        words += ("--data", "calib.npz", "--eval-data", "noise.npz", "--min-sqnr-db", "0")
        words += ("--max-drop", "0.5", "--search-s", "0")
        ran = deploy(*words, "--effort", "fast")
        assert ran.code == 3
        assert re.search(r"accuracy drop \(points\) is \d+\.\d\d, needs 0\.5", ran.errors[0])
        # without labels the same loss shows as disagreement with float32
        np.savez("noise.npz", image=x)
        ran = deploy(*words, "--effort", "fast")
        assert ran.code == 3
        assert re.search(r"disagreement \(points\) is \d+\.\d\d, needs 0\.5", ran.errors[0])
        # with the time for it, layers go back to float until the gate holds
        ran = deploy(*words)
        assert ran.code == 0
        choice = json.loads(Path("out/precision.json").read_text())
        tried = {row["name"]: row for row in choice["tried"]}
        assert tried["all"]["outcome"].startswith("missed a gate: top-1 disagreement")
        assert tried[choice["chosen"]]["outcome"] == "passed"
        assert len(choice["sensitivity"]) > 5


class TestSettings:
    def test_dynamic_batch_takes_any_batch(self, deploy: Deploy, here: Path) -> None:
        import openvino

        words = ("build", "digits.onnx", "--int8", "--data", "calib.npz", *SMALL, "-o", "out")
        assert deploy(*words, "--batch", "dynamic").code == 0
        compiled = openvino.Core().compile_model(
            "out/engine/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        x = np.load("test.npz")["image"][:5]
        together = compiled({"image": x})[0]
        assert together.shape == (5, 10)
        alone = np.concatenate([compiled({"image": one[None]})[0] for one in x])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("flags", [("--batch", "4"), ("--shape", "image=4,1,8,8")])
    def test_fixed_batch(self, deploy: Deploy, here: Path, flags: tuple[str, ...]) -> None:
        ran = deploy("build", "digits.onnx", "--fp32", "--data", "test.npz", *flags, "-o", "out")
        assert ran.code == 0, ran.err
        described = json.loads(Path("out/engine/engine.json").read_text())
        assert described["inputs"] == [{"name": "image", "dtype": "float32", "shape": [4, 1, 8, 8]}]
        task = json.loads(Path("out/report.json").read_text())["parity"]["task"]
        assert task["samples"] == 540, "the last, unfilled batch counts too"
        assert task["drop"] == 0

    @pytest.mark.parametrize("calibrator", ["minmax", "entropy"])
    def test_ranges_do_not_depend_on_the_batch_size(
        self, deploy: Deploy, here: Path, calibrator: str
    ) -> None:
        seen = set()
        for size in (1, 7, 32):
            data = ("--data", "calib.npz", "--samples", 33, "--batch-size", size)
            words = ("calibrate", "digits.onnx", *data, "--calibrator", calibrator)
            assert deploy(*words, "-o", f"{size}.json").code == 0
            seen.add(Path(f"{size}.json").read_bytes())
        assert len(seen) == 1

    def test_recipe_file_is_the_same_as_flags(self, deploy: Deploy, here: Path) -> None:
        Path("r.toml").write_text(
            'target = "intel-vnni"\nprecision = "int8"\ndata = "calib.npz"\nsamples = 16\n'
            'eval_data = "test.npz"\neval_samples = 60\ncalibrator = "entropy"\nbatch = 2\n'
            "max_drop = 5\n[shape]\nimage = ['?', 1, 8, 8]\n"
        )
        flags = ("--target", "intel-vnni", "--int8", "--data", "calib.npz", "--samples", "16")
        flags += ("--eval-data", "test.npz", "--eval-samples", "60", "--calibrator", "entropy")
        flags += ("--batch", "2", "--max-drop", "5", "--shape", "image=?,1,8,8")
        assert deploy("build", "digits.onnx", *flags, "-o", "a").code == 0
        assert deploy("build", "digits.onnx", "--recipe", "r.toml", "-o", "b").code == 0
        a, b = (Bundle.load(Path(n)).manifest for n in "ab")
        assert a["recipe"] == b["recipe"]
        assert a["data"] == b["data"]
        differs = {n for n in a["files"] if a["files"][n] != b["files"][n]}
        assert differs <= {"report.html", "report.json"}
        # a flag wins over the file
        read = Recipe.read("r.toml", {"samples": 8})
        assert read.model_dump(mode="json") == a["recipe"] | {"samples": 8}

    def test_own_target(self, deploy: Deploy, here: Path) -> None:
        Path("mine.toml").write_text(
            'extends = "cpu"\ntitle = "my board"\nfusions = []\n'
            "[quantization]\nweight_bits = 7\n[engine]\nthreads = 1\n"
        )
        words = ("build", "digits.onnx", "--int8", "--data", "calib.npz", *SMALL)
        ran = deploy(*words, "--target", "mine.toml", "--json")
        assert ran.code == 0, ran.err
        assert (ran.json["target"], ran.json["target_title"]) == ("mine", "my board")
        folder = Path("digits-mine-int8")
        ops = [n.op_type for n in onnx.load(folder / "model/fused.onnx").graph.node]
        assert "BatchNormalization" in ops, "no fusions were asked for"
        proto = onnx.load(folder / "model/quantized.onnx")
        stored = [i for i in proto.graph.initializer if i.data_type == onnx.TensorProto.INT8]
        largest = max(int(np.abs(onnx.numpy_helper.to_array(i).astype(int)).max()) for i in stored)
        assert largest == 63, "7 bits"

    def test_entropy_clips_what_minmax_keeps(
        self, deploy: Deploy, here: Path, int8: Built, digits: Path
    ) -> None:
        data = ("--data", "calib.npz", "--eval-data", "test.npz")
        words = ("build", "digits.onnx", "--int8", *data, "--calibrator", "entropy", "-o", "out")
        ran = deploy(*words, "--max-drop", "0.5", "--json")
        assert ran.code == 0, ran.err
        minmax = json.loads((int8.folder / "ranges.json").read_text())
        entropy = json.loads(Path("out/ranges.json").read_text())
        assert entropy["settings"] == {"calibrator": "entropy"}
        assert entropy["sample_sha256"] == minmax["sample_sha256"]
        widths = [
            (e["high"] - e["low"]) / (m["high"] - m["low"])
            for e, m in zip(entropy["tensors"].values(), minmax["tensors"].values(), strict=True)
        ]
        assert min(widths) < 0.95, "nothing was clipped"

    def test_images_with_labels(self, deploy: Deploy, here: Path) -> None:
        """The digits as an image folder: the same accuracy as from the .npz."""
        from PIL import Image

        stored = np.load("test.npz")
        rows = ["file,label,split"]
        Path("photos").mkdir()
        for i in range(80):
            # 0..1 in sixteenths -> 0..240, exactly; the recipe's scale brings it back
            pixels = np.rint(stored["image"][i, 0] * 240).astype(np.uint8)
            Image.fromarray(pixels).save(f"photos/{i:03}.png")
            rows.append(f"{i:03}.png,{stored['labels'][i]},{'calib' if i < 20 else 'test'}")
        Path("photos/labels.csv").write_text("\n".join(rows))
        preprocess = ("--color", "GRAY", "--scale", str(1 / 240))
        words = ("build", "digits.onnx", "--int8", "--data", "photos", *preprocess, "-o", "out")
        ran = deploy(*words, "--json")
        assert ran.code == 0, ran.err
        assert ran.json["accuracy"]["samples"] == 60, "the test split judges"
        session = onnxruntime.InferenceSession("digits.onnx")
        images = stored["image"][20:80]
        right = [
            int(session.run(None, {"image": x[None]})[0].argmax() == y)
            for x, y in zip(images, stored["labels"][20:80], strict=True)
        ]
        assert ran.json["accuracy"]["reference_pct"] == pytest.approx(100 * sum(right) / 60)

    def test_python_function(self, deploy: Deploy, here: Path) -> None:
        Path("my_samples.py").write_text(
            "import numpy as np\n"
            "def digits():\n"
            "    with np.load('calib.npz') as stored:\n"
            "        images, labels = stored['image'], stored['labels']\n"
            "    for x, y in zip(images[:24], labels):\n"
            "        yield {'image': x, 'label': y}\n"
        )
        words = ("build", "digits.onnx", "--int8", "--data", "python:my_samples:digits")
        ran = deploy(*words, "--samples", "16", "-o", "out", "--json")
        assert ran.code == 0, ran.err
        assert ran.json["accuracy"]["samples"] == 8, "what calibration didn't use judges"

    def test_the_model_is_never_written_to(self, deploy: Deploy, here: Path) -> None:
        before = Path("digits.onnx").read_bytes()
        Path("digits.onnx").chmod(0o400)
        assert deploy("build", "digits.onnx", "--fp32", "-o", "out").code == 0
        assert Path("digits.onnx").read_bytes() == before


def test_an_engine_that_takes_raw_images(deploy: Deploy, here: Path) -> None:
    """The digits as bytes, as a scanner gives them: the engine scales them itself."""
    for name in ("calib", "test"):
        data = np.load(f"{name}.npz")
        pixels = (data["image"] * 16).round().astype(np.uint8).transpose(0, 2, 3, 1)
        np.savez(f"raw_{name}.npz", image=pixels, labels=data["labels"])
    words = ("--data", "raw_calib.npz", "--eval-data", "raw_test.npz", "-o", "out", "--json")
    look = ("--fold-input", "--color", "GRAY", "--scale", str(1 / 16))
    ran = deploy("build", "digits.onnx", "--int8", *words, *look, "--max-drop", "0.5")
    assert ran.code == 0, ran.err
    assert ran.json["accuracy"]["reference_pct"] == pytest.approx(100 * 536 / 540)
    engine = json.loads(Path("out/engine/engine.json").read_text())
    assert engine["inputs"] == [{"name": "image", "dtype": "uint8", "shape": [1, 8, 8, 1]}]
    assert deploy("parity", "out").code == 0
    again = deploy("parity", "digits.onnx", "out", "--eval-data", "raw_test.npz", *look)
    assert again.code == 0, again.err
    floats = deploy("build", "digits.onnx", "--int8", *words, "--fold-input", "--fresh")
    assert (floats.code, len(floats.errors)) == (2, 1)
    assert "--fold-input: 0 of the inputs" in floats.errors[0], "three channels were expected"


def test_the_report_keeps_every_stage_of_a_raw_image_build(deploy: Deploy, here: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 17, (6, 8, 8, 1), dtype=np.uint8)
    np.savez("raw.npz", image=pixels)
    words = ("--fold-input", "--color", "GRAY", "--scale", str(1 / 16), "-o", "out")
    assert deploy("build", "digits.onnx", "--fp32", "--eval-data", "raw.npz", *words).code == 0
    report = json.loads(Path("out/report.json").read_text())
    assert [row["stage"] for row in report["graph"]] == [
        "loaded",
        "rawinput",
        "simplified",
        "fused",
    ]
    assert report["model"]["inputs"] == ["image uint8[N,8,8,1]"]
    assert "fold_input" in {row["rule"] for row in report["decisions"]}


def test_an_input_with_a_default_is_said(
    deploy: Deploy, tmp_path: Path, digits: Path, data: tuple[str, ...]
) -> None:
    """It becomes a constant, on the terminal and in the report."""
    proto = onnx.load(digits / "digits.onnx")
    weight = proto.graph.initializer[0]
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
    )
    onnx.save(proto, tmp_path / "default.onnx")
    said = "1 input has a default and is a constant of the engine from here on"
    out = tmp_path / "out"
    ran = deploy("build", tmp_path / "default.onnx", "--fp32", *data[2:], *SMALL, "-o", out)
    assert ran.code == 0
    assert re.search(rf"  warning +{said}: '{re.escape(weight.name)}'", ran.err)
    assert said in (out / "report.html").read_text(encoding="utf-8")
    assert said in deploy("load", tmp_path / "default.onnx").err
