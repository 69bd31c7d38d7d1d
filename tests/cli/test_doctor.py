"""`deploy doctor`: go or no-go by exit code, in words and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

Deploy = Callable[..., Any]


def test_go_in_words(deploy: Deploy, digits: Path) -> None:
    ran = deploy("doctor", digits / "digits.onnx", "--target", "xavier")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "digits on xavier, int8: go"
    assert "in the way" not in lines
    heads = [line for line in lines if line and not line.startswith(" ")][1:]
    assert heads == [
        *("to know", "the build rewrites", "INT8, predicted", "target", "remains after the build"),
    ]
    assert max(map(len, lines)) <= 100
    assert "Checked against the vendor's real API." in ran.out
    assert "python3 finish.py" in ran.out


def test_dla_in_words(deploy: Deploy, digits: Path) -> None:
    ran = deploy("doctor", digits / "digits.onnx", "--target", "xavier-dla")
    assert ran.code == 0
    assert "DLA, predicted" in ran.out
    assert "changes to and from the GPU" in ran.out


def test_no_go_is_exit_1_and_no_error(deploy: Deploy, tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [6]),)]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(
        [helper.make_node("Unique", ["x"], ["y"], name="u")], "g", ports, [out]
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    ran = deploy("doctor", path, "--target", "orin", "--json")
    assert ran.code == 1
    assert ran.err.splitlines()[0] == "m on orin, int8: no-go"
    assert "in the way" in ran.err
    assert "remains" not in ran.err
    assert ran.json["go"] is False
    assert ran.json["findings"][0]["where"] == ["u"]


def test_json(deploy: Deploy, digits: Path) -> None:
    found = deploy("doctor", digits / "digits.onnx", "--target", "orin-dla", "--json").json
    assert found.keys() >= {"model", "target", "go", "findings", "rewrites", "dla", "int8"}
    assert found["dla"]["loadables"] >= 1
    assert found["proven"]["rung"] == "api"


def test_another_precision(deploy: Deploy, digits: Path) -> None:
    ran = deploy("doctor", digits / "digits.onnx", "--target", "xavier", "--fp16")
    assert ran.out.splitlines()[0] == "digits on xavier, fp16: go"
    assert "INT8, predicted" not in ran.out


def test_openvino_targets_too(deploy: Deploy, digits: Path) -> None:
    ran = deploy("doctor", digits / "digits.onnx", "--target", "cpu")
    assert ran.code == 0
    assert "OpenVINO reads the float graph here" in ran.out


def test_refused(deploy: Deploy, digits: Path) -> None:
    ran = deploy("doctor", digits / "digits.onnx", "--target", "xaviar")
    assert ran.code == 2
    assert "did you mean 'xavier'?" in ran.errors[0]


def test_the_batch_of_the_build_decides(deploy: Deploy, digits: Path) -> None:
    model = digits / "digits.onnx"
    free = deploy("doctor", model, "--target", "orin-dla", "--batch", "dynamic")
    assert free.code == 1 and "a DLA takes a fixed one" in free.out
    fixed = deploy("doctor", model, "--target", "orin-dla", "--batch", "4")
    assert fixed.code == 0 and "the engine is built for 4" in fixed.out


def test_raw_images_are_looked_at_as_they_are_built(deploy: Deploy, digits: Path) -> None:
    flags = ("--fold-input", "--color", "GRAY", "--crop", "8")
    ran = deploy("doctor", digits / "digits.onnx", "--target", "xavier", *flags, "--json")
    assert ran.code == 0 and ran.json["go"]


def test_what_fp8_leaves_to_others(deploy: Deploy, digits: Path) -> None:
    model = digits / "digits.onnx"
    ran = deploy("doctor", model, "--target", "h100", "--fp8", "--json")
    assert ran.code == 0 and ran.json["int8"]["int8"] == 3
    assert "3 of 13 layers that multiply are placed in FP8" in ran.err
    nothing = deploy("doctor", model, "--target", "rtx40", "--fp8")
    assert nothing.code == 1 and "nothing to quantize" in nothing.out
