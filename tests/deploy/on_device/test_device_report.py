from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.on_device.device_report import DeviceReport, forget_report, write_whole
from deploy.on_device.manifest_check import Manifest


def report() -> DeviceReport:
    return DeviceReport(Manifest(Path(), {"manifest_sha256": "abc"}))


def test_ok_until_there_is_a_problem(tmp_path: Path) -> None:
    made = report()
    made.save(tmp_path)
    first = json.loads((tmp_path / "device_report.json").read_text())
    assert (first["schema_version"], first["status"], first["problems"]) == (1, "ok", [])
    assert first["manifest_sha256"] == "abc"
    made.problems.append("too hot")
    made.save(tmp_path)
    again = json.loads((tmp_path / "device_report.json").read_text())
    assert (again["status"], again["problems"]) == ("failed", ["too hot"])


def test_every_part_is_there_from_the_start() -> None:
    assert set(report().to_json()) == {
        *("schema_version", "status", "created", "problems", "overrides", "manifest_sha256"),
        *("device", "built_with", "engine", "plugins", "layers", "messages", "on_dla", "int8"),
        *("parity", "latency", "plugin_choice"),
    }


def test_a_write_that_fails_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    write_whole(path, b"first")
    with pytest.raises(TypeError):
        write_whole(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["model.engine"]


def test_an_earlier_report_is_forgotten(tmp_path: Path) -> None:
    forget_report(tmp_path)
    report().save(tmp_path)
    forget_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
