"""Our plugin library in real plugin registries of TensorRT, without a GPU. Opt-in:

TENSORRT_852      folder of the unpacked wheel tensorrt 8.5.2.2 for Python 3.10 (549 MB)
TENSORRT_LEAN     folder of unpacked tensorrt-lean-cu12-libs wheels, by version: 11.4.0/...
TENSORRT_BINDINGS folder of bindings by version, see fetch_tensorrt_bindings
TENSORRT_INCLUDE  headers, see tensorrt_headers

All are under NVIDIA's licence: to be used here, not to be passed on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stubbed_tensorrt import python_for

HERE = Path(__file__).resolve().parent
FIELDS = {
    "ShuffleDepthwise": {
        "groups": "INT32",
        "strides": "INT32",
        "pads": "INT32",
        "activation": "CHAR",
        "x_scale": "FLOAT32",
        "y_scale": "FLOAT32",
    },
    "SePointwise": {"x_scale": "FLOAT32", "y_scale": "FLOAT32"},
    "ChannelShuffle": {"groups": "INT32"},
}
# header, five numbers of it, the values, and the closing hash
BYTES = {"ShuffleDepthwise": 20 + 44 + 4, "SePointwise": 20 + 8 + 4, "ChannelShuffle": 20 + 4 + 4}
# lean runtime and bindings, and the newest headers that fit them: an engine's plugins have to be
# compiled for TensorRT's major version, others crash
LATER = [("10.16", "10.16"), ("11.4", "11.1")]


def folder_of(variable: str) -> Path:
    given = os.environ.get(variable)
    if not given:
        pytest.skip(f"{variable} isn't set")
    return Path(given)


def answers(site: Path, *arguments: str) -> dict[str, Any]:
    """What in_registry.py prints, by the Python that the wheel is for."""
    python, wanted = python_for(site)
    if python is None:
        pytest.skip(f"{site} needs Python {wanted}; none was found")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the libraries that stand in for CUDA's")
    command = [python, "-B", str(HERE / "in_registry.py"), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_tensorrt_8_5_makes_keeps_and_rereads_every_plugin(
    plugin_library: Callable[[str], Path],
) -> None:
    site = folder_of("TENSORRT_852")
    found = answers(site, "v2", str(site), str(plugin_library("8.5")))
    assert found["version"] == "8.5.2.2"
    assert set(found["ops"]) == set(FIELDS)
    for op, said in found["ops"].items():
        assert said == {
            "fields": FIELDS[op],
            "type": [op, "1", ""],
            "outputs": 1,
            "bytes": BYTES[op],
            "same": True,
            "clone": True,
            "damaged_taken": 0,
            "refused": True,
        }, op


@pytest.mark.parametrize(("version", "release"), LATER)
def test_later_registries_take_the_newer_interface(
    version: str, release: str, plugin_library: Callable[[str], Path]
) -> None:
    bindings = sorted(folder_of("TENSORRT_BINDINGS").glob(f"{version}*/"))
    lean = sorted(folder_of("TENSORRT_LEAN").glob(f"{version}*/**/libnvinfer_lean.so.*"))
    if not bindings or not lean:
        pytest.skip(f"no bindings or no lean runtime of TensorRT {version}")
    library = str(plugin_library(release))
    found = answers(bindings[0], "v3", str(bindings[0]), library, str(lean[0]))
    assert found["version"].startswith(version)
    assert set(found["ops"]) == set(FIELDS)
    for op, said in found["ops"].items():
        assert said == {
            "fields": FIELDS[op],
            "type": [op, "1", ""],
            "outputs": 1,
            "refused": True,
        }, op
