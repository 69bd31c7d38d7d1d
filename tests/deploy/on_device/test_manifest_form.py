"""What a manifest may be: every field of another kind is named, before anything reads it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from device_folder import write_device

from deploy.on_device.device_error import DeviceError
from deploy.on_device.manifest_check import read_manifest
from deploy.on_device.manifest_form import wrong_fields


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = write_device(tmp_path_factory.mktemp("form") / "device")
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def changed(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(content)
    at: Any = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return made


def test_the_hosts_is_of_the_form(content: dict[str, Any]) -> None:
    assert list(wrong_fields(content)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("parity", "min_cosine"), None),
        (("parity", "rounding_sqnr_db"), {"y": 30}),
        (("inputs", 0, "shape", 0), None),
        (("profiles",), {"x": {"min": [1], "opt": [2], "max": [3]}}),
        (("plugins",), [{"folder": "a", "op": "A", "version": "1"}]),
    ],
)
def test_what_may_be_otherwise(content: dict[str, Any], path: Any, value: Any) -> None:
    assert list(wrong_fields(changed(content, path, value))) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("precision",), "int4", "precision is 'int4', not one of bf16, fp16, fp32, fp8, int8"),
        (("rest",), [], "rest is [], not one of bf16, fp16, fp32"),
        (("quantization",), None, "quantization is None, not one of explicit, implicit, none"),
        (("nvidia", "library"), "other", "nvidia.library is 'other', not one of"),
        (("nvidia", "versions"), "8.5.2", "nvidia.versions is '8.5.2', not of type list"),
        (("nvidia", "versions", 0), 8.5, "nvidia.versions[0] is 8.5, not of type str"),
        (("nvidia", "use_dla"), "yes", "nvidia.use_dla is 'yes', not of type bool"),
        (("inputs", 0), "x", "inputs[0] is no table"),
        (("inputs", 0), {"name": "x", "dtype": "float32"}, "inputs[0].shape is missing"),
        (("inputs", 0, "shape", 1), "3", "inputs[0].shape[1] is '3', not of type int"),
        (("profiles",), {"x": {"min": [1], "opt": [1]}}, "profiles.x.max is missing"),
        (("plugins",), [None], "plugins[0] is no table"),
        (("quantized_layers",), 1, "quantized_layers is 1, not of type list"),
        (("parity", "scores"), ["y"], "parity.scores is ['y'], not of type str"),
        (("parity", "min_cosine"), "", "parity.min_cosine is '', not of type int or float"),
        (("parity", "simulated_sqnr_db"), 1, "parity.simulated_sqnr_db is no table"),
        (("parity", "rounding_sqnr_db"), {"y": {}}, "parity.rounding_sqnr_db.y is {}, not of"),
    ],
)
def test_what_may_not(content: dict[str, Any], path: Any, value: Any, said: str) -> None:
    (found,) = wrong_fields(changed(content, path, value))
    assert found.startswith(said)


def test_a_folder_for_no_release(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device", nvidia={"versions": []})
    with pytest.raises(DeviceError, match=r"nvidia\.versions is empty; build the bundle again"):
        read_manifest(folder)


def test_many_are_not_all_told(tmp_path: Path) -> None:
    folder = write_device(tmp_path / "device", inputs=[None] * 9)
    with pytest.raises(DeviceError) as caught:
        read_manifest(folder)
    assert str(caught.value).count("is no table") == 5
