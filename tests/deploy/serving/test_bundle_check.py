"""A bundle from elsewhere: what isn't what its manifest says, or is too much, is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_bundles import bundle, identity, named, ops, parameter, scaled, scaled_truth, seal

from deploy.artifacts import untrusted
from deploy.artifacts.bundle import _self_hash
from deploy.errors import BundleError
from deploy.serving.bundle_check import check
from deploy.serving.compiled import Compiled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return scaled(tmp_path / "b")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and make its own hash right again, as an attacker would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest["manifest_sha256"] = _self_hash(manifest)
    path.write_text(json.dumps(manifest))


def test_a_good_one_is_taken(folder: Path) -> None:
    checked = check(folder)
    assert (checked.name, checked.precision, checked.libraries) == ("tiny", "fp32", ())
    assert len(checked.digest) == 64


@pytest.mark.parametrize("name", ["engine/model.bin", "engine/model.xml", "engine/engine.json"])
def test_a_changed_file(folder: Path, name: str) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=rf"{name}: changed .*not used"):
        check(folder)


def test_a_grown_file_is_refused_before_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "engine" / "model.bin"
    os.truncate(path, 1 << 40)
    monkeypatch.setattr("deploy.artifacts.bundle.sha256_of", lambda path: pytest.fail("read"))
    with pytest.raises(BundleError, match=r"1099511627776 bytes, the manifest says"):
        check(folder)


def test_an_added_and_a_missing_file(folder: Path) -> None:
    (folder / "extra.so").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"extra\.so: added"):
        check(folder)
    (folder / "extra.so").unlink()
    (folder / "engine" / "model.bin").unlink()
    with pytest.raises(BundleError, match=r"model\.bin: missing"):
        check(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "engine/../../outside"])
def test_a_name_that_leads_out(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_bytes(b"secret")

    def change(manifest: dict[str, Any]) -> None:
        size = (folder / name).stat().st_size if (folder / name).exists() else 0
        manifest["files"][name] = {"sha256": "0" * 64, "bytes": size}

    rewrite(folder, change)
    with pytest.raises(BundleError, match="leads out of the bundle"):
        check(folder)


def test_links(folder: Path) -> None:
    target = folder.parent / "weights"
    path = folder / "engine" / "model.bin"
    path.rename(target)
    path.symlink_to(target)
    with pytest.raises(BundleError, match=r"model\.bin: leads out of the bundle"):
        check(folder)


def test_a_linked_folder(folder: Path) -> None:
    (folder / "engine").rename(folder.parent / "engine")
    (folder / "engine").symlink_to(folder.parent / "engine")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        check(folder)


def test_a_pipe_in_place_of_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(BundleError, match="not a plain file"):
        check(folder)


def test_a_pipe_in_place_of_weights(folder: Path) -> None:
    (folder / "engine" / "model.bin").unlink()
    os.mkfifo(folder / "engine" / "model.bin")
    with pytest.raises(BundleError, match="not a plain file"):
        check(folder)


def test_absurd_sizes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MOST_MANIFEST_BYTES", 10)
    with pytest.raises(BundleError, match="a manifest has at most 10"):
        check(folder)
    monkeypatch.setattr(untrusted, "MOST_MANIFEST_BYTES", 1 << 20)
    monkeypatch.setattr(untrusted, "MOST_BYTES", 10)
    with pytest.raises(BundleError, match="at most 10 are taken"):
        check(folder)
    monkeypatch.setattr(untrusted, "MOST_FILES", 1)
    with pytest.raises(BundleError, match="lists 4 files; at most 1"):
        check(folder)


@pytest.mark.parametrize("size", [None, -1, "4", True, 1.5])
def test_sizes_that_are_none(folder: Path, size: Any) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["engine/model.bin"]["bytes"] = size

    rewrite(folder, change)
    with pytest.raises(BundleError, match=r"model\.bin: size"):
        check(folder)


def test_another_schema(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(schema_version=99))
    with pytest.raises(BundleError, match="schema version 99"):
        check(folder)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        check(tmp_path)


def test_a_bundle_that_missed_its_gates(folder: Path) -> None:
    seal(folder, status="parity failed")
    with pytest.raises(BundleError, match=r"status 'parity failed'; mend .* --allow-failed"):
        check(folder)
    assert check(folder, allow_failed=True).name == "tiny"


def test_no_openvino_engine(tmp_path: Path, folder: Path) -> None:
    for path in (folder / "engine").iterdir():
        path.unlink()
    seal(folder)
    with pytest.raises(BundleError, match=r"no OpenVINO engine .*deploy package --format triton"):
        check(folder)
    x = parameter("x", [1, 3])
    other = bundle(tmp_path / "o", [named(ops.relu(x), "y")], [x], backend="trt")
    with pytest.raises(BundleError, match="an engine of backend 'trt'"):
        check(other)


def test_a_library_is_code_and_is_loaded_only_when_asked_for(tmp_path: Path) -> None:
    x = parameter("x", [1, 3])
    row = {"plugin": "p", "file": "libp.so", "sha256": "0" * 64}
    folder = bundle(tmp_path / "b", [named(ops.relu(x), "y")], [x], described={"libraries": [row]})
    (folder / "engine" / "libp.so").write_bytes(b"code")
    seal(folder)
    with pytest.raises(BundleError, match=r"loading it runs its code; give --allow-libraries"):
        check(folder)
    with pytest.raises(BundleError, match="not the library the engine was built with"):
        check(folder, allow_libraries=True)


def test_a_library_outside_the_bundle(tmp_path: Path) -> None:
    x = parameter("x", [1, 3])
    described = {"libraries": [{"file": "../../evil.so", "sha256": "0" * 64}]}
    folder = bundle(tmp_path / "b", [named(ops.relu(x), "y")], [x], described=described)
    with pytest.raises(BundleError, match=r"leads out of engine/"):
        check(folder, allow_libraries=True)


def test_a_description_that_isnt_the_engines(tmp_path: Path) -> None:
    x = parameter("x", [1, 3])
    described = {"inputs": [{"name": "z"}]}
    folder = bundle(tmp_path / "b", [named(ops.relu(x), "y")], [x], described=described)
    with pytest.raises(BundleError, match=r"engine\.json lists the inputs \['z'\], .* \['x'\]"):
        Compiled(check(folder))


def test_types_that_v2_has_not(tmp_path: Path) -> None:
    folder = identity(tmp_path / "b", "string")
    with pytest.raises(BundleError, match=r"input 'x' is .*string.*; V2 has no such tensors"):
        Compiled(check(folder))


def test_garbage_in_place_of_the_engine(folder: Path) -> None:
    (folder / "engine" / "model.xml").write_bytes(b"<net>" + np.random.default_rng(0).bytes(200))
    seal(folder)
    with pytest.raises(BundleError, match="OpenVINO can't read the engine"):
        Compiled(check(folder))


def test_what_changes_between_verifying_and_loading(folder: Path) -> None:
    checked = check(folder)
    path = folder / "engine" / "model.bin"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BundleError, match=r"model\.bin: changed while it was loaded"):
        Compiled(checked)


def test_an_engine_survives_its_files(folder: Path) -> None:
    runner = Compiled(check(folder)).runner()
    # a mapped file that is cut short would end the process here
    os.truncate(folder / "engine" / "model.bin", 0)
    x = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(runner.run({"x": x})["y"], scaled_truth(x))
