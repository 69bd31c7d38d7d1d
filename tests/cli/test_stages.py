"""The stages as commands on files: chained by hand they make what `deploy build` makes."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deploy.cli import run

Deploy = Callable[..., Any]
BUILD = "build digits.onnx --int8 --data calib.npz --samples 16 --eval-samples 40 -o bundle"
# which placement is the fastest, a clock decides: not here
BUILD += " --search-s 0"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A folder with every stage's product, and the bundle of one build of the same."""
    folder = tmp_path_factory.mktemp("chain")
    before = Path.cwd()
    for name in ("digits.onnx", "calib.npz", "test.npz"):
        shutil.copy(digits / name, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (
            "load digits.onnx -o loaded.onnx",
            "simplify loaded.onnx -o simple.onnx",
            "fuse simple.onnx --target cpu -o fused.onnx",
            "equalize fused.onnx --target cpu --data calib.npz --samples 16 -o equal.onnx",
            "calibrate equal.onnx --data calib.npz --samples 16 --calibrator auto -o ranges.json",
            "quantize equal.onnx --ranges ranges.json --target cpu -o placed.onnx",
            "correct placed.onnx equal.onnx --data calib.npz --samples 16 -o quantized.onnx",
            "compile quantized.onnx --target cpu --int8 -o engine",
            BUILD,
        ):
            assert run(command.split()) == 0, command
    assert Path.cwd() == before
    return folder


@pytest.fixture
def inside(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the chain to work in."""
    shutil.copytree(chain, tmp_path / "chain")
    monkeypatch.chdir(tmp_path / "chain")
    return tmp_path / "chain"


@pytest.mark.parametrize(
    ("stage", "bundled"),
    [
        ("fused.onnx", "model/fused.onnx"),
        ("ranges.json", "ranges.json"),
        ("quantized.onnx", "model/quantized.onnx"),
        ("engine/model.xml", "engine/model.xml"),
        ("engine/model.bin", "engine/model.bin"),
        ("engine/engine.json", "engine/engine.json"),
        ("engine/settings.json", "engine/settings.json"),
    ],
)
def test_by_hand_and_by_build_are_the_same_bytes(chain: Path, stage: str, bundled: str) -> None:
    assert (chain / stage).read_bytes() == (chain / "bundle" / bundled).read_bytes()


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("load digits.onnx", {"inputs", "outputs", "opset", "nodes", "sha256"}),
        ("simplify loaded.onnx -o new.onnx", {"nodes_before", "nodes_after", "decisions"}),
        ("fuse simple.onnx --target cpu -o new.onnx", {"output", "sha256", "decisions"}),
        (
            "calibrate fused.onnx --data calib.npz --samples 8 -o new.json",
            {"output", "tensors", "reused", "samples"},
        ),
        ("equalize fused.onnx --data calib.npz --samples 8 -o new.onnx", {"output", "decisions"}),
        ("quantize equal.onnx --ranges ranges.json -o new.onnx", {"output", "decisions"}),
        (
            "correct placed.onnx equal.onnx --data calib.npz --samples 8 -o new.onnx",
            {"output", "decisions"},
        ),
        ("compile quantized.onnx -o new", {"output", "precision", "inputs", "outputs"}),
        ("parity digits.onnx engine --data test.npz", {"passed", "outputs", "gates", "task"}),
        ("parity bundle", {"passed", "outputs", "gates", "task"}),
        ("verify bundle", {"bundle", "status", "problems"}),
        ("targets", {"targets"}),
        (
            "doctor digits.onnx --target xavier",
            {"model", "target", "go", "findings", "int8"},
        ),
    ],
)
def test_json_is_one_object(inside: Path, deploy: Deploy, command: str, keys: set[str]) -> None:
    ran = deploy(*command.split(), "--json")
    assert ran.code == 0, ran.err
    assert keys <= set(ran.json)
    # and without it, no JSON but something to read
    for made in (inside / "new.onnx", inside / "new.json"):
        made.unlink(missing_ok=True)
    plain = deploy(*command.split())
    assert plain.code == 0
    assert plain.out.strip()
    assert not any(line.startswith("{") for line in plain.out.splitlines())


def test_load_says_what_goes_in_and_out(inside: Path, deploy: Deploy) -> None:
    ran = deploy("load", "digits.onnx")
    assert re.search(r"input +image float32\[.+,1,8,8\]", ran.out)
    assert re.search(r"output +logits float32\[.+,10\]", ran.out)
    assert "opset 17, 47 nodes" in ran.out


def test_fuse_says_what_it_did(inside: Path, deploy: Deploy) -> None:
    ran = deploy("fuse", "simple.onnx", "-o", "new.onnx", "--json")
    applied = [d for d in ran.json["decisions"] if d["outcome"] == "applied"]
    rules = Counter(d["rule"] for d in applied)
    assert rules == {"fold_affine": 10, "channel_layout": 1}
    # ten BatchNormalizations, and the one shuffle that no grouped conv forces
    assert (ran.json["nodes_before"], ran.json["nodes_after"]) == (47, 34)
    rows = json.loads(Path("new.decisions.json").read_text())
    assert rows == ran.json["decisions"]
    assert "BatchNormalization" not in {n.op_type for n in onnx.load("new.onnx").graph.node}


def test_quantize_refuses_ranges_of_another_model(inside: Path, deploy: Deploy) -> None:
    ran = deploy("quantize", "digits.onnx", "--ranges", "ranges.json", "-o", "new.onnx")
    assert (ran.code, len(ran.errors)) == (1, 1)
    assert re.search(r"ranges made from model \w{12}, this one is \w{12}; calibrate", ran.errors[0])
    assert not Path("new.onnx").exists()


class TestCompile:
    def test_a_float_graph_is_not_called_int8(self, inside: Path, deploy: Deploy) -> None:
        ran = deploy("compile", "fused.onnx", "-o", "new", "--json")
        assert (ran.code, ran.json["precision"]) == (0, "fp32")
        ran = deploy("compile", "fused.onnx", "--int8", "-o", "other")
        assert (ran.code, len(ran.errors)) == (2, 1)
        assert "--int8, but fused holds no Q/DQ; `deploy quantize` it first" in ran.errors[0]
        assert not Path("other").exists()

    def test_a_quantized_graph_is(self, inside: Path, deploy: Deploy) -> None:
        ran = deploy("compile", "quantized.onnx", "-o", "new", "--json")
        assert (ran.code, ran.json["precision"]) == (0, "int8")

    def test_precision_the_target_lacks(self, inside: Path, deploy: Deploy) -> None:
        ran = deploy("compile", "fused.onnx", "--bf16", "--target", "intel-avx2", "-o", "new")
        assert ran.code == 2
        assert "bf16 is not offered by target 'intel-avx2'; it has: " in ran.errors[0]

    def test_output_is_not_an_engine(self, inside: Path, deploy: Deploy) -> None:
        ran = deploy("compile", "fused.onnx", "--fp32", "-o", "bundle/model")
        assert ran.code == 2
        assert "bundle/model: holds something that isn't an engine" in ran.errors[0]
        ran = deploy("compile", "fused.onnx", "--fp32", "-o", "calib.npz")
        assert ran.code == 2
        assert "calib.npz: exists and is not a folder; give another -o" in ran.errors[0]


class TestParity:
    WORDS = ("--data", "test.npz", "--eval-samples", "100", "--json")

    def perturbed(self, share: float) -> str:
        """The quantized model with the last layer's weights off by that share, up and down."""
        proto = onnx.load("fused.onnx")
        random = np.random.default_rng(23)
        for weight in proto.graph.initializer:
            if len(weight.dims) == 4:
                w = numpy_helper.to_array(weight)
                off = w * (1 + share * random.choice([-1.0, 1.0], w.shape))
                weight.CopyFrom(numpy_helper.from_array(off.astype(w.dtype), weight.name))
        onnx.save(proto, "wrong.onnx")
        return "wrong.onnx"

    def test_right_engine_passes(self, inside: Path, deploy: Deploy) -> None:
        ran = deploy("parity", "digits.onnx", "engine", *self.WORDS, "-o", "parity.json")
        assert ran.code == 0
        assert ran.json["task"]["samples"] == 100
        assert 28 < ran.json["outputs"][0]["sqnr_db"] < 45
        assert json.loads(Path("parity.json").read_text()) == ran.json
        assert re.search(r"ok +SQNR of 'logits' \(dB\): 3\d\.\d+, limit ", ran.err)

    def test_bundle_is_as_good_as_its_engine(self, inside: Path, deploy: Deploy) -> None:
        engine = deploy("parity", "digits.onnx", "engine", *self.WORDS).json
        bundle = deploy("parity", "digits.onnx", "bundle", *self.WORDS).json
        assert bundle.pop("ladder")["broken"] == []
        assert bundle == engine

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_weights_off_by_5_percent_are_caught(
        self, inside: Path, deploy: Deploy, precision: str
    ) -> None:
        wrong = self.perturbed(0.05)
        words = ["compile", wrong, "--fp32", "-o", "wrong"]
        if precision == "int8":
            # even the loose INT8 gate of the target has to see it
            data = ("--data", "calib.npz", "--samples", "16")
            assert deploy("calibrate", wrong, *data, "-o", "wrong.json").code == 0
            ranges = ("--ranges", "wrong.json")
            assert deploy("quantize", wrong, *ranges, "-o", "wrongq.onnx").code == 0
            words = ["compile", "wrongq.onnx", "--int8", "-o", "wrong"]
        assert deploy(*words).code == 0
        ran = deploy("parity", "digits.onnx", "wrong", *self.WORDS, "--min-sqnr-db", "30")
        assert (ran.code, len(ran.errors)) == (3, 1)
        assert re.search(r"SQNR of 'logits' \(dB\) is 1[4-8]\.\d\d, needs 30", ran.errors[0])
        assert ran.json["passed"] is False
        assert "MISSED SQNR" in ran.err
        if precision == "fp32":
            ran = deploy("parity", "digits.onnx", "wrong", *self.WORDS)
            assert ran.code == 3, "the target's own gate for fp32 is far above 5 % errors"

    def test_onnx_against_onnx(self, inside: Path, deploy: Deploy) -> None:
        ran = deploy("parity", "digits.onnx", "fused.onnx", *self.WORDS)
        assert ran.code == 0
        assert ran.json["outputs"][0]["sqnr_db"] > 100

    def test_stored_samples_judge_a_bundle_alone(self, inside: Path, deploy: Deploy) -> None:
        assert deploy("parity", "bundle").code == 0
        ran = deploy("parity", "bundle", "--min-sqnr-db", "150")
        assert (ran.code, len(ran.errors)) == (3, 1)
        assert "needs 150" in ran.errors[0]

    @pytest.mark.parametrize("flags", [("--data", "test.npz"), ("--max-drop", "1")])
    def test_a_bundle_alone_can_not_use_data(
        self, inside: Path, deploy: Deploy, flags: tuple[str, str]
    ) -> None:
        ran = deploy("parity", "bundle", *flags)
        assert (ran.code, len(ran.errors)) == (2, 1)
        assert f"{flags[0]} needs " in ran.errors[0]
        assert "deploy parity MODEL bundle" in ran.errors[0]

    def test_neither_bundle_nor_engine(self, inside: Path, deploy: Deploy) -> None:
        for candidate, what in (("nothing", "no such file or folder"), ("bundle/model", "neither")):
            ran = deploy("parity", "digits.onnx", candidate)
            assert (ran.code, len(ran.errors)) == (1, 1)
            assert f"{candidate}: {what}" in ran.errors[0]


class TestBench:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from deploy import bench

        def throughput(*arguments: Any) -> Any:
            return bench.throughput(*arguments, rounds=2, slice_s=0.02)

        monkeypatch.setattr("deploy.compare.throughput", throughput)

    def test_two_candidates_side_by_side(self, inside: Path, deploy: Deploy) -> None:
        ran = deploy("bench", "fused.onnx", "bundle", "--fp32", "--rounds", "20", "--json")
        assert ran.code == 0, ran.err
        assert list(ran.json["candidates"]) == ["bundle", "fused.onnx"]
        for row in ran.json["candidates"].values():
            assert 0 < row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
            assert row["samples_per_s"] > 0
            assert row["rounds"] == 20
        lines = ran.err.splitlines()
        assert "median ms     p90     p99  samples/s  speed-up" in lines[0]
        assert [line.split()[0] for line in lines[1:3]] == ["fused.onnx", "bundle"]
        assert lines[1].endswith("1.00x"), "the first one is what the others are compared with"

    def test_same_candidate_twice(self, inside: Path, deploy: Deploy) -> None:
        ran = deploy("bench", "bundle", "bundle", "--rounds", "20")
        assert (ran.code, len(ran.errors)) == (2, 1)
        assert "a candidate is given twice; give each once" in ran.errors[0]

    def test_missing_candidate(self, inside: Path, deploy: Deploy) -> None:
        ran = deploy("bench", "bundle", "bundel", "--rounds", "20")
        assert (ran.code, len(ran.errors)) == (1, 1)
        assert "bundel: no such file or folder; give a bundle" in ran.errors[0]
