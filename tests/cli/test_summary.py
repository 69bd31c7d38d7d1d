"""What the terminal says at the end of a build about the choice of precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.artifacts.bundle import Bundle
from deploy.artifacts.precision import PrecisionChoice
from deploy.cli.build import summary
from deploy.errors import BuildError

REASON = "predicted from the roofline: 0.251 ms, 1.05x the speed of bf16"


def bundle(folder: Path) -> Bundle:
    results = {"accuracy": None, "verdict": "31.7 dB", "latency": {}, "on_target": True}
    return Bundle(folder, {"target": "cpu", "results": {**results, "precision": "int8"}})


def test_says_which_engine_was_chosen_and_why(tmp_path: Path) -> None:
    PrecisionChoice("convs", REASON, False, (), (), {}).save(tmp_path / "precision.json")
    *_, chosen, report = summary(bundle(tmp_path))
    assert chosen == f"precision  convs: {REASON}"
    assert report.startswith("report ")


def test_says_nothing_where_nothing_was_chosen(tmp_path: Path) -> None:
    assert not [line for line in summary(bundle(tmp_path)) if line.startswith("precision")]


def test_a_damaged_choice_is_named(tmp_path: Path) -> None:
    (tmp_path / "precision.json").write_text("{}")
    with pytest.raises(BuildError, match=r"precision\.json: damaged"):
        summary(bundle(tmp_path))
