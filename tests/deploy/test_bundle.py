"""A bundle on disk: every change after the build is found, and no damage gets past `load`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.artifacts.bundle import MANIFEST, Bundle, write_manifest
from deploy.errors import BundleError

CONTENT: dict[str, Any] = {
    "status": "passed",
    "model": {"name": "digits"},
    "target": {"name": "cpu"},
    "precision": "int8",
    "tools": {},
    "command": [],
    "results": {"sqnr_db": 31.5},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    (made / "engine").mkdir(parents=True)
    (made / "engine" / "model.bin").write_bytes(b"weights")
    (made / "report.html").write_bytes(b"<p>fine</p>")
    write_manifest(made, CONTENT)
    return made


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def problems(folder: Path) -> list[str]:
    return Bundle.load(folder).problems()


def test_an_untouched_bundle_has_no_problems(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert bundle.problems() == []
    assert bundle.name == "digits"
    assert {n: e["bytes"] for n, e in bundle.manifest["files"].items()} == {
        "engine/model.bin": 7,
        "report.html": 11,
    }


def test_the_same_content_gives_the_same_manifest(folder: Path) -> None:
    before = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).unlink()
    write_manifest(folder, dict(reversed(CONTENT.items())))
    assert (folder / MANIFEST).read_bytes() == before


def test_a_changed_file_of_the_same_size_is_found(folder: Path) -> None:
    (folder / "engine" / "model.bin").write_bytes(b"Weights")
    (found,) = problems(folder)
    assert found.startswith("engine/model.bin: changed (sha256 ")
    assert ", was " in found


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "report.html").unlink()
    assert problems(folder) == ["report.html: missing"]


def test_a_folder_in_place_of_a_file_is_found(folder: Path) -> None:
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    assert problems(folder) == ["report.html: missing"]


def test_an_added_file_is_found_and_an_empty_folder_is_not_one(folder: Path) -> None:
    (folder / "engine" / "extra.so").write_bytes(b"")
    (folder / "empty").mkdir()
    assert problems(folder) == ["engine/extra.so: added, the manifest doesn't know it"]


@pytest.mark.parametrize("inside", [True, False], ids=["to a twin inside", "to outside"])
def test_a_link_in_place_of_a_file_is_found(folder: Path, inside: bool) -> None:
    """Even one to the same bytes: tomorrow it leads to others."""
    path = folder / "report.html"
    twin = (folder / "twin.html") if inside else (folder.parent / "twin.html")
    path.rename(twin)
    path.symlink_to(twin)
    assert "report.html: leads out of the bundle; don't use this bundle" in problems(folder)


def test_a_folder_that_is_a_link_out_is_found(folder: Path) -> None:
    (folder / "engine").rename(folder.parent / "elsewhere")
    (folder / "engine").symlink_to(folder.parent / "elsewhere", target_is_directory=True)
    found = problems(folder)
    assert "engine/model.bin: leads out of the bundle; don't use this bundle" in found


def test_an_added_link_to_a_folder_is_found(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent, target_is_directory=True)
    assert problems(folder) == ["more: added, the manifest doesn't know it"]


def test_an_added_link_to_nothing_is_found(folder: Path) -> None:
    (folder / "more").symlink_to("nowhere")
    assert problems(folder) == ["more: added, the manifest doesn't know it"]


OUTSIDE = ["../outside.bin", "engine/../../outside.bin", "/etc/hostname"]
ODD = ["../missing.bin", "engine/../report.html", "/missing.bin"]


@pytest.mark.parametrize("name", [*OUTSIDE, *ODD])
def test_a_name_that_leads_out_is_found(folder: Path, name: str) -> None:
    (folder.parent / "outside.bin").write_bytes(b"outside")
    edit(folder, lambda m: m["files"].update({name: {"sha256": "0" * 64, "bytes": 7}}))
    found = problems(folder)
    assert f"{name}: leads out of the bundle; don't use this bundle" in found
    assert f"{MANIFEST}: changed (its own hash doesn't match)" in found


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["results"].update(sqnr_db=99.9),
        lambda m: m.update(status="failed"),
        lambda m: m.update(extra=1),
        lambda m: m.pop("manifest_sha256"),
    ],
    ids=["figure", "status", "added key", "no hash"],
)
def test_an_edited_manifest_is_found(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(folder, change)
    assert problems(folder) == [f"{MANIFEST}: changed (its own hash doesn't match)"]


def test_an_entry_without_a_hash_is_found(folder: Path) -> None:
    edit(folder, lambda m: m["files"]["report.html"].pop("sha256"))
    assert any(p.startswith("report.html: changed") for p in problems(folder))


def test_a_folder_without_a_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest.json, so not a bundle; give the folder"):
        Bundle.load(tmp_path)
    with pytest.raises(BundleError, match="so not a bundle"):
        Bundle.load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": NaN}', b'{"a": Infinity}'])
def test_a_manifest_that_is_not_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(
        BundleError, match=r"manifest.json: unreadable \(.*\); build the bundle again"
    ):
        Bundle.load(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}", '{"schema_version": 2}'])
def test_another_schema_is_refused(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=r"schema version (None|2), this onnx-deploy reads 1"):
        Bundle.load(folder)


def test_missing_keys_are_named(folder: Path) -> None:
    edit(folder, lambda m: (m.pop("tools"), m.pop("results")))
    with pytest.raises(BundleError, match=r"manifest.json: tools, results missing; build"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    "wrong",
    [{"files": []}, {"files": {"a": "sha"}}, {"files": None}, {"model": "digits"}],
    ids=["list", "text entry", "nothing", "model"],
)
def test_tables_that_are_something_else_are_refused(folder: Path, wrong: dict[str, Any]) -> None:
    edit(folder, lambda m: m.update(wrong))
    with pytest.raises(BundleError, match="model or files is not a table; build the bundle again"):
        Bundle.load(folder)
