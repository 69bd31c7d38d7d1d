"""What a build finds beside its output and didn't make is never touched; what it says is so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.slow

Deploy = Callable[..., Any]
BUILD = ("build", "digits.onnx", "--int8", "--data", "calib.npz", "--samples", "8")
QUICK = (*BUILD, "--eval-samples", "8", "-o", "out")


def keep(path: str) -> Path:
    """A file of the user's."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("thesis")
    return file


@pytest.mark.parametrize("name", ["out.old", "out.partial", ".out.old"])
def test_folders_with_names_like_ours_stay(name: str, deploy: Deploy, here: Path) -> None:
    file = keep(f"{name}/thesis.txt")
    assert deploy(*QUICK).code == 0
    assert deploy(*QUICK).code == 0
    assert file.read_text() == "thesis"


@pytest.mark.parametrize("name", ["out.work", "out.failed"])
def test_folders_that_a_build_would_use_are_refused(name: str, deploy: Deploy, here: Path) -> None:
    file = keep(f"{name}/thesis.txt")
    ran = deploy(*QUICK)
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert f"{name}: holds 'thesis.txt'" in ran.errors[0]
    assert file.read_text() == "thesis"
    assert not Path("out").exists()


def test_a_file_added_to_a_bundle_stops_the_next_build(deploy: Deploy, here: Path) -> None:
    assert deploy(*QUICK).code == 0
    file = keep("out/NOTES.md")
    ran = deploy(*QUICK)
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "out: holds 'NOTES.md', which the build didn't make" in ran.errors[0]
    assert file.read_text() == "thesis"
    file.unlink()
    assert deploy(*QUICK).code == 0


def test_nothing_but_an_engine_is_replaced_by_compile(deploy: Deploy, here: Path) -> None:
    file = keep("mine/settings.json")
    ran = deploy("compile", "digits.onnx", "--fp32", "-o", "mine")
    assert (ran.code, file.read_text()) == (2, "thesis")
    assert "mine: holds something that isn't an engine" in ran.errors[0]
    assert deploy("compile", "digits.onnx", "--fp32", "-o", "engine").code == 0
    assert deploy("compile", "digits.onnx", "--fp32", "-o", "engine").code == 0
    keep("engine/notes.txt")
    assert deploy("compile", "digits.onnx", "--fp32", "-o", "engine").code == 2


@pytest.mark.parametrize("command", ["simplify", "fuse"])
def test_a_stage_does_not_take_its_inputs_place(command: str, deploy: Deploy, here: Path) -> None:
    before = Path("digits.onnx").read_bytes()
    ran = deploy(command, "digits.onnx", "-o", "./digits.onnx")
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "is the model itself" in ran.errors[0]
    assert Path("digits.onnx").read_bytes() == before


def two_outputs(features: str) -> None:
    """The digits network with its features as an output in front of the logits."""
    proto = onnx.load("digits.onnx")
    shape = ["N", 192]
    value = helper.make_tensor_value_info(features, TensorProto.FLOAT, shape)
    logits = proto.graph.output[0]
    outputs = [value, onnx.ValueInfoProto.FromString(logits.SerializeToString())]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    onnx.save(proto, "two.onnx")


def test_accuracy_is_that_of_the_scores_not_of_the_first_output(deploy: Deploy, here: Path) -> None:
    features = next(n.input[0] for n in onnx.load("digits.onnx").graph.node if n.op_type == "Gemm")
    two_outputs(features)
    words = ("build", "two.onnx", "--fp32", "--eval-data", "test.npz", "-o", "out", "--json")
    assert deploy(*words).json["accuracy"]["engine_pct"] > 99
    named = deploy(*words, "--scores", features)
    assert named.json["accuracy"]["engine_pct"] < 20, "as asked for, however little sense it makes"


def test_labels_without_scores_are_said(deploy: Deploy, here: Path) -> None:
    labels = np.load("test.npz")["labels"]
    np.savez("reg.npz", image=np.load("test.npz")["image"][:20], labels=labels[:20])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["y"])],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, 8, 8])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "reg.onnx")
    assert deploy("build", "reg.onnx", "--fp32", "--eval-data", "reg.npz", "-o", "out").code == 0
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "The samples carry labels, but no output is known to hold one score per class" in page


def test_ranges_without_samples_to_judge_on_are_refused(deploy: Deploy, here: Path) -> None:
    ran = deploy("build", "digits.onnx", "--int8", "--ranges", "r.json", "-o", "out")
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "--ranges r.json without samples to judge the engine on" in ran.errors[0]


def test_data_that_changes_between_reads_is_refused(
    deploy: Deploy, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("restless.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    for _ in range(4):\n"
        "        yield {'image': np.random.rand(1, 8, 8).astype('float32')}\n"
    )
    monkeypatch.syspath_prepend(here)
    words = ("--data", "python:restless:samples", "--eval-data", "test.npz", "-o", "out")
    ran = deploy("build", "digits.onnx", "--int8", *words)
    assert (ran.code, len(ran.errors)) == (1, 1)
    assert "python:restless:samples: gives other samples each time it is read" in ran.errors[0]


def test_an_input_that_nothing_reads(deploy: Deploy, here: Path) -> None:
    w = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in ("x", "dead")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(w, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "unused.onnx")
    ran = deploy("build", "unused.onnx", "--fp32", "-o", "out", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["sqnr_db"] > 100


def test_figures_of_another_device_are_not_given_as_its_own(deploy: Deploy, here: Path) -> None:
    ran = deploy("build", "digits.onnx", "--fp32", "--target", "rpi3", "-o", "out", "--json")
    assert ran.code == 0
    assert "on this machine, not on rpi3" in ran.err
    assert "consider --" not in ran.err
    assert ran.json["on_target"] is False


def test_noise_says_which_sizes_were_made_up(deploy: Deploy, here: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, "H", "W"])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "free.onnx")
    words = ("build", "free.onnx", "--fp32", "--shape", "x=1,3,?,?", "-o", "out", "--json")
    evidence = deploy(*words).json["evidence"][0]
    assert "every free dimension besides the batch is 64" in evidence
    assert np.load("out/parity/samples.npz")["x"].shape == (8, 3, 64, 64)


def test_a_rounding_that_counts_as_met_says_so(deploy: Deploy, here: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "tiny"], ["m"]), helper.make_node("Sigmoid", ["m"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.float32(-60), "tiny")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "tail.onnx")
    x = np.abs(np.random.default_rng(0).standard_normal((8, 3))).astype(np.float32) + 0.3
    np.savez("tail.npz", x=x)
    words = ("build", "tail.onnx", "--bf16", "--eval-data", "tail.npz", "-o", "out")
    assert deploy(*words).code == 0
    gates = json.loads(Path("out/report.json").read_text())["parity"]["gates"]
    missed = [gate for gate in gates if gate["observed"] < gate["limit"]]
    assert missed, "else nothing is shown here"
    assert all("counts as rounding" in gate["note"] for gate in missed)
    # a threshold of the user's own is meant as it stands
    assert deploy(*words, "--min-sqnr-db", "199").code == 3
