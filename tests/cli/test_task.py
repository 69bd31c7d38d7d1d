"""A task chosen on the command line: its figures on the terminal, its gate, its mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

Deploy = Callable[..., Any]
WORDS = ("--data", "test.npz", "--eval-samples", "40", "--task", "embed")


def spoilt(path: str) -> str:
    """The model with noise on its last weights."""
    model = onnx.load("digits.onnx")
    last = next(w for w in reversed(model.graph.initializer) if len(w.dims) == 2)
    values = numpy_helper.to_array(last)
    noise = np.random.default_rng(0).normal(0, 0.5, values.shape)
    last.CopyFrom(numpy_helper.from_array((values + noise).astype(values.dtype), last.name))
    onnx.save(model, path)
    return path


def test_parity_tells_the_tasks_figures(here: Path, deploy: Deploy) -> None:
    ran = deploy("parity", "digits.onnx", "digits.onnx", *WORDS, "--max-drop", "0", "--json")
    assert ran.code == 0
    assert "nearest-neighbour agreement 100.00 % on 40 samples, mean cosine 1.0000" in ran.err
    assert ran.json["predictions"]["kind"] == "embed"
    assert ran.json["outputs"][0]["top1_agreement_pct"] is None


def test_a_missed_gate_ends_with_3(here: Path, deploy: Deploy) -> None:
    ran = deploy("parity", "digits.onnx", spoilt("spoilt.onnx"), *WORDS, "--max-drop", "5")
    assert ran.code == 3
    assert "nearest-neighbour disagreement (points) is " in ran.errors[0]


def test_a_build_tells_them_too(here: Path, deploy: Deploy) -> None:
    ran = deploy("build", "digits.onnx", "--fp32", *WORDS, "--max-drop", "1", "-o", "out")
    assert ran.code == 0, ran.err
    assert "\nagreement  nearest-neighbour agreement 100.00 % on 40 samples" in f"\n{ran.out}"
    content = json.loads(Path("out/report.json").read_text())
    assert content["parity"]["predictions"]["agreement_pct"] == 100.0
    assert "Nearest-neighbour agreement with float32 is" in Path("out/report.html").read_text()


def test_options_may_stand_in_the_recipe(here: Path, deploy: Deploy) -> None:
    Path("r.toml").write_text('task = "embed"\n[task_option]\noutput = "logits"\n')
    words = ("--recipe", "r.toml", "--data", "test.npz", "--eval-samples", "8")
    ran = deploy("parity", "digits.onnx", "digits.onnx", *words)
    assert ran.code == 0 and "nearest-neighbour agreement" in ran.out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--task", "embedd"), "task = 'embedd': should be one of auto, none, classify, detect"),
        (("--task", "embed", "--task-option", "output"), "'output' is not of the form key=value"),
        (
            ("--task", "embed", "--task-option", "output=a", "--task-option", "output=b"),
            "--task-option output is given twice",
        ),
        (("--task", "segment"), "0 outputs could hold a map of classes"),
    ],
)
def test_mistakes(here: Path, deploy: Deploy, words: tuple[str, ...], reason: str) -> None:
    ran = deploy("parity", "digits.onnx", "digits.onnx", "--data", "test.npz", *words)
    assert ran.code == 2
    assert reason in ran.err
