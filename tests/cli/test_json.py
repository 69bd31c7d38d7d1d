"""--json: standard output is one JSON object and nothing else, whatever the command says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Deploy = Callable[..., Any]
MODEL = "digits.onnx"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("analyze", MODEL, "--target", "xavier"), "xavier: NVIDIA"),
        (("doctor", MODEL, "--target", "xavier"), "xavier"),
        (("load", MODEL), "nodes"),
        (("targets",), "rtx40"),
        (("targets", "cpu"), "proven: "),
        (("plugins", "list"), "shuffle_depthwise"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("here")
def test_standard_output_is_json_alone(deploy: Deploy, command: tuple[str, ...], said: str) -> None:
    plain, asked = deploy(*command), deploy(*command, "--json")
    assert (plain.code, asked.code) == (0, 0)
    assert said in plain.out
    assert isinstance(asked.json, dict)
    # nothing of what is said gets lost
    assert [line for line in plain.out.splitlines() if line not in asked.err] == []


def test_the_next_command_speaks_on_standard_output_again(deploy: Deploy) -> None:
    deploy("targets", "--json")
    assert "rtx40" in deploy("targets").out


def test_a_mistake_leaves_standard_output_empty(deploy: Deploy, tmp_path: Path) -> None:
    found = deploy("load", tmp_path / "absent.onnx", "--json")
    assert (found.code, found.out) == (1, "")
    assert len(found.errors) == 1
