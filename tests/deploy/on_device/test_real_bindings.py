"""TensorRT's own classes under our subclasses and calls, as far as they go without a GPU.

Opt-in: TENSORRT_BINDINGS names a folder of unpacked wheels, <version>/ each.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("TENSORRT_BINDINGS", ""))
SITES = sorted(FOLDER.glob("*/*.dist-info")) if os.environ.get("TENSORRT_BINDINGS") else []

pytestmark = pytest.mark.skipif(
    not SITES, reason="TENSORRT_BINDINGS names no folder of unpacked TensorRT bindings"
)


@cache
def tried(site: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("loader", HERE.parents[1] / "stubbed_tensorrt.py")
    assert spec is not None and spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    python, wanted = loader.python_for(site)
    if python is None:
        pytest.skip(f"{site.name} needs Python {wanted}; none was found on PATH")
    command = [python, "-B", str(HERE / "tried_on_bindings.py"), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(params=[site.parent for site in SITES], ids=lambda site: str(site.name))
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    return tried(request.param)


def test_our_log_is_a_logger_of_theirs(found: dict[str, Any]) -> None:
    assert found["log"][0] == ["WARNING", "seen"]


def test_their_refusal_without_a_gpu_is_our_error(found: dict[str, Any]) -> None:
    assert set(found["without_gpu"]) == {"Builder", "Runtime"}
    assert all("it needs an NVIDIA GPU" in text for text in found["without_gpu"].values())


def test_types_are_chosen_up_to_10(found: dict[str, Any]) -> None:
    title, _, version = found["version"].rpartition(" ")
    weak = title == "TensorRT" and int(version.split(".")[0]) <= 10
    assert found["weak"] == weak
    assert found["flags"] == int(weak)  # EXPLICIT_BATCH is the first flag where there is one


def test_a_layer_turns_into_a_constant_by_its_class(found: dict[str, Any]) -> None:
    """How the weights of a layer that the network gives as an ILayer are reached."""
    assert found["as_constant"]


def test_our_calibrator_is_one_of_theirs_where_they_have_one(found: dict[str, Any]) -> None:
    if not found["weak"]:
        assert found["calibrator"] is None
        return
    assert found["calibrator"] == {
        "cache": "TRT-8502-EntropyCalibration2\n",
        "algorithm": "ENTROPY_CALIBRATION_2",
        "batch": [1, None],
        "asked": [False, True],
    }
