"""`deploy debug` and `deploy diagnose` on the command line: exit codes, words and JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

Deploy = Callable[..., Any]


@pytest.fixture
def wrong(digits: Path, tmp_path: Path) -> Path:
    """The network with the channels of one convolution in another order."""
    model = onnx.load(digits / "digits.onnx")
    node = next(n for n in model.graph.node if n.name == "unit2.expand.conv/Conv")
    weight = next(w for w in model.graph.initializer if w.name == node.input[1])
    values = np.roll(numpy_helper.to_array(weight), 1, axis=0)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    return tmp_path / "wrong.onnx"


def test_nothing_found(deploy: Deploy, digits: Path, tmp_path: Path) -> None:
    model, data = digits / "digits.onnx", digits / "test.npz"
    ran = deploy("debug", model, model, "--data", data, "-o", tmp_path / "case", "--json")
    assert ran.code == 0, ran.err
    assert "nothing found" in ran.err
    assert ran.json["culprit"] is None
    assert not (tmp_path / "case").exists()


def test_a_node_is_found_and_found_again(
    deploy: Deploy, digits: Path, wrong: Path, tmp_path: Path
) -> None:
    case, data = tmp_path / "case", digits / "test.npz"
    ran = deploy("debug", digits / "digits.onnx", wrong, "--data", data, "-o", case, "--json")
    assert ran.code == 3, ran.err
    assert ran.json["culprit"]["node"] == "unit2.expand.conv/Conv"
    assert f"deploy debug --replay {case}" in ran.err
    again = deploy("debug", "--replay", case, "--json")
    assert again.code == 3
    assert again.json["fails"] is True
    assert "fails: " in again.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m.onnx"], "two graphs are compared"),
        (["m.onnx", "n.onnx", "--replay", "case"], "takes no model"),
    ],
)
def test_usage(deploy: Deploy, arguments: list[str], said: str) -> None:
    ran = deploy("debug", *arguments)
    assert ran.code == 2
    assert said in ran.errors[0]


def test_a_folder_that_is_there_is_left_alone(deploy: Deploy, digits: Path, tmp_path: Path) -> None:
    model = digits / "digits.onnx"
    ran = deploy("debug", model, model, "-o", tmp_path)
    assert ran.code == 2
    assert "exists; give another -o" in ran.errors[0]


def test_diagnose_a_sound_network(deploy: Deploy, digits: Path) -> None:
    model, data = digits / "digits.onnx", digits / "test.npz"
    ran = deploy("diagnose", model, "--data", data, "--json")
    assert ran.code == 0, ran.err
    assert "none of the usual suspects" in ran.err
    assert ran.json["healthy"] is True


def test_diagnose_says_what_is_likely(deploy: Deploy, digits: Path, tmp_path: Path) -> None:
    with np.load(digits / "test.npz") as file:
        rows = {name: file[name] for name in file.files}
    np.savez(tmp_path / "same.npz", **{n: np.repeat(x[:1], 12, axis=0) for n, x in rows.items()})
    data = tmp_path / "same.npz"
    ran = deploy("diagnose", digits / "digits.onnx", "--data", data, "--json")
    assert ran.code == 3
    assert "likely: constant output" in ran.err
    assert "constant output" in [row["kind"] for row in ran.json["findings"]]
    said = [line for line in ran.err.splitlines() if str(data) not in line]
    assert max(map(len, said)) <= 100


def test_diagnose_needs_samples(deploy: Deploy, digits: Path) -> None:
    ran = deploy("diagnose", digits / "digits.onnx")
    assert ran.code == 2
    assert "no --data" in ran.errors[0]
