from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from device_folder import write_device

from deploy.files import json_bytes
from deploy.on_device.device_error import DeviceError
from deploy.on_device.manifest_check import (
    Manifest,
    RefusedError,
    canonical_json,
    check_capability,
    check_version,
    file_problems,
    read_manifest,
    release,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_device(tmp_path / "device", extra_files={"plugins/CMakeLists.txt": b"x"})


def rewritten(folder: Path, change: Any) -> Path:
    """The manifest with something else in it, and its own hash no longer right."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_bytes(json_bytes(content))
    return folder


def test_a_folder_as_packed_has_no_problems(folder: Path) -> None:
    assert file_problems(read_manifest(folder)) == []


def test_json_is_the_hosts() -> None:
    value = {"b": [1.5, None, "ü"], "a": {"z": 1e-300, "y": True}}
    assert canonical_json(value) == json_bytes(value)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"no manifest\.json; run finish\.py inside"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_no_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DeviceError, match="unreadable"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(schema_version=2), "schema version 2, this finish.py reads 1"),
        (lambda c: c["nvidia"].pop("typing"), r"nvidia\.typing is missing"),
        (lambda c: c.update(nvidia=[]), "nvidia is no table"),
        (lambda c: c.update(precision=8), "precision is 8, not one of"),
    ],
)
def test_another_form_is_named(folder: Path, change: Any, reason: str) -> None:
    with pytest.raises(DeviceError, match=reason):
        read_manifest(rewritten(folder, change))


def test_a_changed_manifest_is_seen(folder: Path) -> None:
    rewritten(folder, lambda c: c["parity"].update(min_sqnr_db=1.0))
    (problem,) = file_problems(read_manifest(folder))
    assert problem.startswith("manifest.json: changed (sha256 ")


def test_changed_missing_and_added_files_are_named(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"\0" * (folder / "model.onnx").stat().st_size)
    (folder / "finish.py").write_text("longer than it was before")
    (folder / "parity" / "samples.npz").unlink()
    (folder / "plugins" / "more.cu").write_text("")
    found = file_problems(read_manifest(folder))
    reasons = [problem.split(":")[0] + problem.split(":")[1].split("(")[0] for problem in found]
    assert reasons == [
        "finish.py changed ",
        "model.onnx changed ",
        "parity/samples.npz missing",
        "plugins/more.cu added, the manifest doesn't know it",
    ]


def test_what_a_run_leaves_is_no_problem(folder: Path) -> None:
    (folder / "model.engine").write_bytes(b"engine")
    (folder / "device_report.json").write_text("{}")
    (folder / "build").mkdir()
    (folder / "build" / "timing.cache").write_bytes(b"")
    assert file_problems(read_manifest(folder)) == []


def test_a_name_that_leads_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    rewritten(folder, lambda c: c["files"].update({"../secret": {"sha256": "", "bytes": 1}}))
    assert any("../secret: leads out" in p for p in file_problems(read_manifest(folder)))


def test_unlisted_data_is_not_read(folder: Path) -> None:
    (folder / "calibration.cache").write_text("TRT-8502-EntropyCalibration2\n")
    with pytest.raises(RefusedError, match=r"calibration\.cache isn't in manifest\.json"):
        read_manifest(folder).data("calibration.cache")


def manifest(**nvidia: Any) -> Manifest:
    table = {"library": "tensorrt", "versions": ["8.5.2", "8.6.1"], "compute_capability": "7.2"}
    content = {"nvidia": {**table, **nvidia}, "target": {"title": "Xavier"}}
    return Manifest(Path(), content)


@pytest.mark.parametrize(
    ("installed", "exact"), [("8.5.2.2", True), ("8.5.3.1", False), ("8.6.0", False)]
)
def test_versions_that_fit(installed: str, exact: bool) -> None:
    assert check_version(manifest(), installed, exact=exact, allow=()) == ""


@pytest.mark.parametrize(
    ("installed", "exact", "reason"),
    [
        ("8.4.1", False, r"tensorrt 8\.4\.1 is installed, this folder is for 8\.5\.2, 8\.6\.1"),
        ("8.5.3.1", True, r"8\.5\.3\.1 is installed, .* 8\.5\.2 \(exactly"),
        # the cache is of the first version alone
        ("8.6.1", True, r"leave the cache out with --scales ranges"),
        ("10.5.2", False, r"or try it all the same with --allow version"),
    ],
)
def test_versions_that_do_not(installed: str, exact: bool, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        check_version(manifest(), installed, exact=exact, allow=("sm",))


def test_a_waived_version_is_noted() -> None:
    note = check_version(manifest(), "10.3.0", exact=False, allow=("version",))
    assert "10.3.0 is installed, this folder is for 8.5.2" in note


def test_compute_capability() -> None:
    assert check_capability(manifest(), "7.2", ()) == ""
    with pytest.raises(RefusedError, match=r"capability 8\.7, this folder is for 7\.2 \(Xavier\)"):
        check_capability(manifest(), "8.7", ("version",))
    with pytest.raises(RefusedError, match=r"nothing here can tell, this folder is for 7\.2"):
        check_capability(manifest(), "", ())
    assert "8.7" in check_capability(manifest(), "8.7", ("sm",))


def test_release_numbers() -> None:
    assert release("8.5.2.2") == (8, 5, 2, 2)
    assert release("10.14.1.48.post1") == (10, 14, 1, 48)


def test_a_text_that_is_none(tmp_path: Path) -> None:
    broken = {"calibration.cache": b"TRT-8502-EntropyCalibration2\n\xff: 3f800000\n"}
    folder = write_device(tmp_path / "device", extra_files=broken)
    with pytest.raises(
        DeviceError, match=r"calibration\.cache: not UTF-8 .*; copy the folder again"
    ):
        read_manifest(folder).text("calibration.cache")
