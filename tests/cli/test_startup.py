"""`deploy --help` costs click alone; every command explains itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import cli

COMMANDS = [
    "analyze",
    "bench",
    "build",
    "calibrate",
    "compile",
    "correct",
    "debug",
    "diagnose",
    "diff",
    "doctor",
    "equalize",
    "fuse",
    "import",
    "load",
    "package",
    "parity",
    "plugins",
    "quantize",
    "serve",
    "simplify",
    "targets",
    "verify",
    "widen",
]
HEAVY = ["onnx", "numpy", "onnxruntime", "openvino", "onnxslim", "onnx_graphsurgeon", "pydantic"]
HEAVY += ["rich", "PIL", "tensorrt", "calibrators"]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "import deploy",
        "import deploy.cli",
        "from deploy.cli import run; assert run(['--help']) == 0",
        "from deploy.cli import run; assert run(['build', '--help']) == 0",
        "from deploy.cli import run; assert run(['--version']) == 0",
        "from deploy.cli import run; assert run([]) == 2",
        "from deploy.cli import run; assert run(['build']) == 2",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    ran = python(f"{code}\nimport sys\nprint('loaded:', *sys.modules)")
    assert ran.returncode == 0, ran.stderr
    loaded = {name.split(".")[0] for name in ran.stdout.split("loaded:")[1].split()}
    assert loaded.isdisjoint(HEAVY), sorted(loaded & set(HEAVY))


def test_heavy_would_be_noticed() -> None:
    ran = python("import deploy.load, sys; print(*sys.modules)")
    loaded = {name.split(".")[0] for name in ran.stdout.split()}
    assert {"onnx", "numpy"} <= loaded


def test_commands_are_the_documented_ones() -> None:
    assert sorted(cli.commands) == COMMANDS


def test_help_lists_every_command(deploy: Callable[..., Any]) -> None:
    ran = deploy("--help")
    assert ran.code == 0
    listed = {line.split()[0]: line for line in ran.out.splitlines() if line.startswith("  ")}
    for name in COMMANDS:
        words = listed[name].split()[1:]
        assert len(words) >= 3, f"{name}: no sentence beside it"
        assert not listed[name].endswith("..."), f"{name}: its sentence is cut off"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(deploy: Callable[..., Any], name: str) -> None:
    grouped = list(getattr(cli.commands[name], "commands", {}))
    for flag in ("--help", "-h"):
        ran = deploy(name, flag)
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith(f"Usage: deploy {name}")
        assert "--verbose" in ran.out
        # a group's own commands have it
        pages = [deploy(name, c, flag).out for c in grouped] or [ran.out]
        # a server prints no result: it runs until it is stopped
        assert name == "serve" or all("--json" in page for page in pages)


def test_without_arguments_help_goes_to_stderr_and_exit_is_2(deploy: Callable[..., Any]) -> None:
    ran = deploy()
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: deploy")
    assert "verify" in ran.err


def test_version(deploy: Callable[..., Any]) -> None:
    ran = deploy("--version")
    assert (ran.code, ran.out) == (0, "deploy, version 0.1.0\n")


def test_python_m_deploy_is_the_command() -> None:
    command = [sys.executable, "-m", "deploy", "targets"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "cpu" in ran.stdout


def test_a_reader_that_goes_away_costs_no_traceback(tmp_path: Path) -> None:
    # the pipe's reading end is closed before the first byte is written
    code = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
    ran = python(f"{code}from deploy.cli import main; main(['targets'])")
    assert ran.returncode == 1
    assert ran.stderr == ""


def test_targets_lists_and_shows(deploy: Callable[..., Any]) -> None:
    listed = deploy("targets", "--json")
    assert listed.code == 0
    names = [target["name"] for target in listed.json["targets"]]
    assert names == sorted(names)
    assert {"cpu", "intel-avx2", "intel-vnni", "intel-amx", "arm-cpu", "rpi3"} <= set(names)
    shown = deploy("targets", "cpu", "--json")
    assert [t["name"] for t in shown.json["targets"]] == ["cpu"]
    assert "bandwidth_bytes_per_s" in shown.out
