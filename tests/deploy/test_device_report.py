"""What comes back from a device: read with care, and refused with both values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.artifacts.device_report import REPORT, DeviceReport
from deploy.errors import BundleError


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


SENT: dict[str, Any] = {
    "manifest_sha256": "a" * 64,
    "nvidia": {
        "library": "tensorrt",
        "versions": ["8.5.2", "8.4.1"],
        "compute_capability": "7.2",
    },
    "plugins": [{"folder": "p"}],
    "files": {"model.onnx": {"sha256": sha(b"model"), "bytes": 5}},
}


OWN = {"compute_capability": "7.2", "library": "tensorrt", "version": "8.5.2"}


def came_back(folder: Path, **changes: Any) -> DeviceReport:
    """A folder as finish.py leaves it; `changes` are to its report."""
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "model.engine").write_bytes(b"engine")
    (folder / "plugins").mkdir(exist_ok=True)
    (folder / "plugins" / "lib.so").write_bytes(b"plugin")
    content = {
        "schema_version": 1,
        "status": "ok",
        "problems": [],
        "manifest_sha256": "a" * 64,
        "built_with": "python",
        "device": {"compute_capability": "7.2", "library": "tensorrt", "version": "8.5.2.2"},
        "engine": {"file": "model.engine", "sha256": sha(b"engine"), "bytes": 6, "seconds": 3.0},
        "plugins": [{"folder": "p", "library": "plugins/lib.so", "sha256": sha(b"plugin")}],
        "parity": {
            "samples": 8,
            "outputs": [{"name": "y", "sqnr_db": 30.0, "cosine": 0.99, "max_abs": 0.1}],
            "gates": [{"name": "SQNR of 'y' (dB)", "passed": True}],
        },
        "latency": {"median_ms": 1.0, "p90_ms": 1.2, "runs": 9},
        "layers": [],
    }
    (folder / REPORT).write_text(json.dumps(content | changes))
    return DeviceReport.load(folder)


def test_what_fits_has_no_mismatch(tmp_path: Path) -> None:
    assert came_back(tmp_path).mismatches(SENT) == []


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({"compute_capability": "8.7"}, "compute capability '8.7', the bundle is for '7.2'"),
        ({"version": "8.6.1"}, "tensorrt '8.6.1', the bundle is for 8.5.2, 8.4.1"),
        ({"library": "tensorrt_rtx"}, "library 'tensorrt_rtx', the bundle is for 'tensorrt'"),
    ],
)
def test_another_device_is_refused_with_both_values(
    tmp_path: Path, device: dict[str, str], words: str
) -> None:
    assert came_back(tmp_path, device=OWN | device).mismatches(SENT) == [words]


def test_another_bundles_folder_is_refused(tmp_path: Path) -> None:
    found = came_back(tmp_path, manifest_sha256="b" * 64).mismatches(SENT)
    (words,) = found
    assert words == f"it reports on device/ of manifest {'b' * 12}, this bundle sent {'a' * 12}"


@pytest.mark.parametrize("name", ["model.onnx", "model.engine", "plugins/lib.so"])
def test_a_changed_file_is_refused_with_both_hashes(tmp_path: Path, name: str) -> None:
    report = came_back(tmp_path)
    old = sha((tmp_path / name).read_bytes())
    (tmp_path / name).write_bytes(b"other")
    wanted = f"{name} has sha256 {sha(b'other')[:12]}, it was {old[:12]}"
    assert report.mismatches(SENT) == [wanted]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plugins": []}, ""),  # it was faster without them
        ({"plugins": [], "plugin_choice": {"chosen": "without", "reason": "slower"}}, ""),
        (
            {"plugins": [], "plugin_choice": {"chosen": "with plugins", "reason": "faster"}},
            "plugins: none, in an engine that was kept for them; the bundle sent p",
        ),
        (
            {"plugins": [{"folder": "q", "library": "plugins/lib.so", "sha256": sha(b"plugin")}]},
            "plugins: q; the bundle sent p",
        ),
    ],
)
def test_other_kernels_are_refused_with_both_names(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    assert came_back(tmp_path, **changes).mismatches(SENT) == ([words] if words else [])


def test_a_bundle_without_kernels_takes_none_back(tmp_path: Path) -> None:
    (words,) = came_back(tmp_path).mismatches(SENT | {"plugins": []})
    assert words == "plugins: p; the bundle sent none"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    report = came_back(tmp_path)
    (tmp_path / "model.engine").unlink()
    assert report.mismatches(SENT) == ["model.engine is missing in the folder"]


def test_a_file_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "device"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"engine")
    report = came_back(folder, engine={"file": "../secret", "sha256": sha(b"engine")})
    assert report.mismatches(SENT) == ["../secret is missing in the folder"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "no device_report.json; run `python3 finish.py`"),
        (lambda path: path.write_text("{"), "unreadable"),
        (lambda path: path.write_text("[" * 100_000), "nested too deep"),
        (lambda path: path.write_text("[]"), "schema version None"),
        (lambda path: path.write_text('{"schema_version": 9}'), "schema version 9"),
        (lambda path: path.write_text('{"schema_version": 1}'), "status, problems"),
    ],
)
def test_what_is_not_a_report_says_what_to_do(
    tmp_path: Path, spoil: Callable[[Path], Any], words: str
) -> None:
    came_back(tmp_path)
    spoil(tmp_path / REPORT)
    with pytest.raises(BundleError, match=words):
        DeviceReport.load(tmp_path)


def test_success_without_an_engine_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="engine missing"):
        came_back(tmp_path, engine=None)


def test_a_failure_may_have_ended_before_there_was_one(tmp_path: Path) -> None:
    report = came_back(tmp_path, status="failed", engine=None, parity=None, plugins=None)
    assert report.mismatches(SENT) == []


PASSED = {"name": "SQNR", "passed": True}
FINE = {"name": "y", "sqnr_db": 30.0, "cosine": 0.99, "max_abs": 0.1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"problems": ["odd"]}, "status ok beside the problem 'odd'"),
        ({"parity": {"samples": 8, "outputs": [], "gates": []}}, "without samples or outputs"),
        ({"parity": {"samples": 0, "outputs": [FINE], "gates": []}}, "without samples"),
        ({"parity": {"samples": "x", "outputs": [FINE], "gates": []}}, "samples of parity is 'x'"),
        (
            {"parity": {"samples": 8, "outputs": [FINE | {"cosine": None}], "gates": []}},
            "cosine of a row of outputs of parity is missing",
        ),
        (
            {"parity": {"samples": 8, "outputs": [FINE], "gates": [PASSED | {"passed": False}]}},
            "a gate that wasn't passed",
        ),
        ({"latency": {"median_ms": -1, "p90_ms": 1, "runs": 3}}, "latency isn't positive"),
        ({"latency": {"median_ms": "fast", "p90_ms": 1, "runs": 3}}, "median_ms of latency is 'f"),
        ({"latency": {"median_ms": float("nan"), "p90_ms": 1, "runs": 3}}, "latency is nan"),
        ({"latency": {"median_ms": True, "p90_ms": 1, "runs": 3}}, "median_ms of latency is True"),
        ({"latency": [1]}, "latency isn't a table"),
        ({"layers": None}, "layers isn't a list"),
        ({"layers": [{"name": "a"}]}, "kind of a row of layers is missing"),
        ({"int8": [1]}, "int8 isn't a table"),
        ({"on_dla": [1]}, "on_dla isn't a table"),
        ({"plugin_choice": ["with plugins"]}, "plugin_choice isn't a table"),
        ({"plugins": [1]}, "a row of plugins isn't a table"),
        ({"overrides": [{"a": 1}]}, "a row of overrides is {'a': 1}"),
        ({"built_with": 3}, "built_with is 3"),
        ({"device": OWN | {"version": 8.5}}, "version of device is 8.5"),
        ({"engine": {"file": "model.engine", "sha256": "a", "seconds": "soon"}}, "seconds of eng"),
    ],
)
def test_a_success_that_can_not_be_is_not_believed(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        came_back(tmp_path, **changes)


def test_gates_are_judged_again_by_what_was_sent(tmp_path: Path) -> None:
    report = came_back(tmp_path)
    assert report.missed({"min_sqnr_db": 30, "min_cosine": None}) == []
    assert report.missed({"min_sqnr_db": 31, "min_cosine": 0.999}) == [
        "sqnr_db of 'y' is 30, needs 31",
        "cosine of 'y' is 0.99, needs 0.999",
    ]
