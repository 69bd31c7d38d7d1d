"""What a build in INT8 says of models and samples that it can't take or shouldn't trust."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

Deploy = Callable[..., Any]


def classifier(
    kind: type[np.floating[Any]], *, number: bool = False, hidden: int = 24
) -> onnx.ModelProto:
    """x[N,16] -> Gemm -> Relu -> Gemm -> scores, or the number of the largest."""
    random, dtype = np.random.default_rng(5), helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "w2"], ["s"]),
    ]
    gives = helper.make_tensor_value_info("s", dtype, ["N", 5])
    if number:
        nodes.append(helper.make_node("ArgMax", ["s"], ["y"], axis=1, keepdims=0))
        gives = helper.make_tensor_value_info("y", onnx.TensorProto.INT64, ["N"])
    # classes that differ by a hundredth: 8 bits confuse them
    weights = {
        "w1": random.normal(size=(16, hidden)),
        "w2": random.normal(size=(hidden, 1)) + 1e-2 * random.normal(size=(hidden, 5)),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, ["N", 16])],
        [gives],
        [numpy_helper.from_array(w.astype(kind), name) for name, w in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made


def given(kind: type[np.floating[Any]], *, number: bool = False) -> tuple[str, ...]:
    """The arguments of a build in this folder."""
    onnx.save(classifier(kind, number=number), "m.onnx")
    random = np.random.default_rng(6)
    for name, count in (("calib", 40), ("test", 50)):
        np.savez(f"{name}.npz", x=random.normal(size=(count, 16)).astype(kind))
    return ("build", "m.onnx", "--int8", "--data", "calib.npz", "--search-s", "0", "-o", "out")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("integers", ["--int8", "--int8-weights"])
def test_a_float16_model_is_made_float32(deploy: Deploy, integers: str) -> None:
    kind, name = np.float16, "float16"
    command = [integers if word == "--int8" else word for word in given(kind)]
    if integers == "--int8-weights":
        onnx.save(classifier(kind, hidden=2048), "m.onnx")
        command = [w for w in command if w not in ("--search-s", "0")]
    found = deploy(*command, "--eval-data", "test.npz")
    assert found.code == 0, found.err
    assert f"stored in {name}, integers are made from it in float32" in found.err
    report = json.loads(Path("out/report.json").read_text())
    assert [d["rule"] for d in report["decisions"] if d["stage"] == "widen"] == [name]
    assert name in report["model"]["inputs"][0]
    assert name in report["model"]["outputs"][0]
    ladder = deploy("parity", "m.onnx", "out")
    assert "widened" in ladder.out
    assert ladder.code == 0, ladder.out


def test_a_model_of_float64_is_told_what_to_build(deploy: Deploy) -> None:
    found = deploy(*given(np.float64))
    assert found.code == 1
    assert "its weights are float64; Q/DQ goes around float32 only; build a" in found.errors[0]


def test_float32_is_not_widened(deploy: Deploy) -> None:
    assert "widen" not in deploy(*given(np.float32), "--eval-data", "test.npz").stages


def test_widen_is_a_command_too(deploy: Deploy) -> None:
    given(np.float16)
    found = deploy("widen", "m.onnx", "-o", "wide.onnx", "--json")
    assert found.code == 0
    assert found.json["decisions"][0]["outcome"] == "applied"
    assert onnx.load("wide.onnx").graph.initializer[0].data_type == onnx.TensorProto.FLOAT


def test_samples_that_calibrated_don_t_judge_silently(deploy: Deploy) -> None:
    command = given(np.float32)
    found = deploy(*command, "--eval-data", "calib.npz")
    assert "40 of 40 samples that judge were calibrated on as well" in found.err
    assert "; 40 of them were calibrated on" in Path("out/report.json").read_text()
    assert "calibrated on as well" not in deploy(*command, "--eval-data", "test.npz").err


def test_a_class_that_is_given_out_has_to_stay_the_same(deploy: Deploy) -> None:
    found = deploy(*given(np.float32, number=True), "--eval-data", "test.npz", "--max-drop", "2")
    assert found.code == 0
    assert "top-1 disagreement (points) is" in found.err
    assert "sensitivity" in found.stages
    gates = json.loads(Path("out/report.json").read_text())["parity"]["gates"]
    assert [g["name"] for g in gates if g["origin"] == "recipe"] == ["top-1 disagreement (points)"]
    assert all(gate["passed"] for gate in gates)


def in_bundle() -> list[str]:
    """What the bundle says that its build warned of."""
    told: list[str] = json.loads(Path("out/report.json").read_text())["summary"]["cautions"]
    assert json.loads(Path("out/manifest.json").read_text())["results"]["cautions"] == told
    return told


def on_terminal(said: str) -> list[str]:
    lines = [line.strip() for line in said.splitlines()]
    return [line.split(maxsplit=1)[1] for line in lines if line.startswith("warning ")]


def test_what_the_terminal_warns_of_stands_in_the_bundle(deploy: Deploy) -> None:
    command = given(np.float32)
    odd = ("--eval-data", "calib.npz", "--max-drop", "2", "--keep-float", "Softmax")
    first = deploy(*command, *odd)
    assert on_terminal(first.err) == in_bundle()
    for words in ("--keep-float", "finer than one of 40 samples", "were calibrated on as well"):
        assert sum(words in line for line in in_bundle()) == 1
    page = Path("out/report.html").read_text()
    assert "What the build warned of" in page
    assert "40 of 40 samples that judge were calibrated on" in page


def test_a_resumed_build_warns_again(deploy: Deploy) -> None:
    command = (*given(np.float32), "--eval-data", "test.npz", "--max-drop", "1")
    first = deploy(*command)
    told = in_bundle()
    again = deploy(*command)
    assert all(again.stages[name] for name in ("audit", "build", "parity"))
    assert told and in_bundle() == told
    assert on_terminal(again.err) == on_terminal(first.err) == told


def test_other_norms_for_calibration_than_for_judging(deploy: Deploy) -> None:
    command = given(np.float32)
    x = np.load("test.npz")["x"]
    np.savez("test.npz", x=0.22 * x + 0.45)
    assert deploy(*command, "--eval-data", "test.npz").code == 0
    (found,) = (line for line in in_bundle() if "the samples that judge have mean 0.4" in line)
    assert "input 'x': calibration samples have mean " in found
    assert "--scale, --mean and --std are applied to --data and --eval-data alike" in found
