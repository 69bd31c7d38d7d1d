"""A bundle from elsewhere: everything that could hurt is refused with its reason."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_bundles import rewritten

from deploy.artifacts.bundle import MANIFEST
from deploy.errors import BundleError, RecipeError
from deploy.packaging.model_name import checked_name
from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import package_bundle
from deploy.packaging.untrusted import load_servable


def forged(folder: Path, **files: dict[str, Any]) -> None:
    """The manifest with other entries in its list of files, its own hash made to fit."""
    import hashlib

    from deploy.files import json_bytes

    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] |= files
    manifest.pop("manifest_sha256")
    manifest["manifest_sha256"] = hashlib.sha256(json_bytes(manifest)).hexdigest()
    (folder / MANIFEST).write_bytes(json_bytes(manifest))


def refused(folder: Path, tmp_path: Path, match: str, form: str = "triton") -> None:
    output = tmp_path / "out"
    with pytest.raises(BundleError, match=match):
        package_bundle(folder, form, output, None, PackageOptions())
    assert not output.exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_good_one_is_taken(bundle: Path) -> None:
    assert load_servable(bundle).name == "digits"


def test_a_changed_file(bundle: Path, tmp_path: Path) -> None:
    xml = bundle / "engine" / "model.xml"
    text = xml.read_bytes()
    xml.write_bytes(text[:-1] + b" ")
    refused(bundle, tmp_path, r"engine/model\.xml: changed")


def test_an_added_file(bundle: Path, tmp_path: Path) -> None:
    (bundle / "engine" / "evil.so").write_bytes(b"")
    refused(bundle, tmp_path, r"engine/evil\.so: added")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "engine/../../x"])
def test_a_path_that_leads_out(name: str, bundle: Path, tmp_path: Path) -> None:
    forged(bundle, **{name: {"sha256": "0" * 64, "bytes": 3}})
    refused(bundle, tmp_path, "leads out of the bundle")


def test_a_link(bundle: Path, tmp_path: Path) -> None:
    model = bundle / "engine" / "model.bin"
    moved = tmp_path / "elsewhere.bin"
    moved.write_bytes(model.read_bytes())
    model.unlink()
    model.symlink_to(moved)
    refused(bundle, tmp_path, r"engine/model\.bin: leads out of the bundle")


def test_a_manifest_that_is_a_link(bundle: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.json"
    (bundle / MANIFEST).rename(moved)
    (bundle / MANIFEST).symlink_to(moved)
    refused(bundle, tmp_path, "a link")


@pytest.mark.parametrize("size", [-1, "3", 2**70, True, None])
def test_an_absurd_size(size: object, bundle: Path, tmp_path: Path) -> None:
    forged(bundle, **{"engine/model.bin": {"sha256": "0" * 64, "bytes": size}})
    refused(bundle, tmp_path, r"size|bytes")


def test_more_files_than_any_build_writes(bundle: Path, tmp_path: Path) -> None:
    rows: dict[str, Any] = {f"x{i}": {"sha256": "0", "bytes": 0} for i in range(10_001)}
    forged(bundle, **rows)
    refused(bundle, tmp_path, "at most 10000")


def test_a_huge_manifest_is_not_parsed(bundle: Path, tmp_path: Path) -> None:
    with (bundle / MANIFEST).open("r+b") as stream:
        os.ftruncate(stream.fileno(), 2**30)
    refused(bundle, tmp_path, "a manifest has at most")


def test_a_manifest_nested_without_end(bundle: Path, tmp_path: Path) -> None:
    (bundle / MANIFEST).write_text("[" * 200_000)
    refused(bundle, tmp_path, "nested too deep|unreadable")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version(version: object, bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**manifest, "schema_version": version}))
    refused(bundle, tmp_path, "schema version")


def test_a_bundle_that_missed_its_gates(bundle: Path, tmp_path: Path) -> None:
    rewritten(bundle, status="parity failed")
    refused(bundle, tmp_path, "only a bundle whose engine passed its gates")


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": 'int8"\nUSER root'},
        {"model": {"name": "digits", "sha256": '"\nRUN true'}},
        {"tools": {"openvino": "2026.4.1\n--index-url http://127.0.0.1"}},
        {"target": ["cpu"]},
    ],
)
def test_a_value_that_would_be_written_into_a_dockerfile(
    changes: dict[str, Any], bundle: Path, tmp_path: Path
) -> None:
    rewritten(bundle, **changes)
    refused(bundle, tmp_path, "no build writes that", "docker")


@pytest.mark.parametrize(
    "name", ["../x", "a/b", ".hidden", "", "a b", "a\n", "-rf", "x" * 65, 'a"b', "ä", "a\\b"]
)
def test_a_name_that_could_lead_out(name: str, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't be the name of a served model"):
        checked_name(name)
    rewritten(bundle, model={"name": name, "sha256": "0" * 64})
    with pytest.raises(RecipeError, match="give another --name"):
        package_bundle(bundle, "triton", tmp_path / "out", None, PackageOptions())


@pytest.mark.parametrize("name", ["digits", "mobilenetv2_1.0_imagenet", "a-b.c", "0"])
def test_a_name_that_is_fine(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"inputs": []}, "inputs"),
        ({"outputs": "x"}, "outputs"),
        ({"inputs": [{"name": "", "dtype": "float32", "shape": [1]}]}, "inputs"),
        ({"inputs": [{"name": "a\nb", "dtype": "float32", "shape": [1]}]}, "inputs"),
        ({"inputs": [{"name": "a", "dtype": "object", "shape": [1]}]}, "type 'object'"),
        ({"inputs": [{"name": "a", "dtype": "float32", "shape": [0]}]}, "dimension 0"),
        ({"inputs": [{"name": "a", "dtype": "float32", "shape": [2**40]}]}, "dimension"),
        ({"inputs": [{"name": "a", "dtype": "float32", "shape": [1.5]}]}, "inputs"),
        ({"libraries": [{"file": "../../evil.so"}]}, "library"),
        ({"libraries": {"file": "x.so"}}, "libraries is not a list"),
    ],
)
def test_a_description_no_build_writes(
    change: dict[str, Any], match: str, bundle: Path, tmp_path: Path
) -> None:
    path = bundle / "engine" / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    rewritten(bundle)
    refused(bundle, tmp_path, match)


def test_a_device_that_is_none(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "engine" / "settings.json"
    settings = json.loads(path.read_text())
    settings["engine"]["device"] = "CPU; rm -rf /"
    path.write_text(json.dumps(settings))
    rewritten(bundle)
    refused(bundle, tmp_path, "device 'CPU; rm")


def written_samples(bundle: Path, header: bytes, claimed: int | None = None) -> None:
    """parity/samples.npz with one member, whose size the directory may claim to be another."""
    path = bundle / "parity" / "samples.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("image.npy"), header)
    if claimed is not None:
        data = bytearray(path.read_bytes())
        # 24 bytes into the directory's entry
        entry = data.index(b"PK\x01\x02")
        data[entry + 24 : entry + 28] = claimed.to_bytes(4, "little")
        path.write_bytes(data)
    rewritten(bundle)


def npy_header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def test_samples_that_would_fill_the_memory(bundle: Path, tmp_path: Path) -> None:
    written_samples(bundle, npy_header((1,)), claimed=2**32 - 2)
    refused(bundle, tmp_path, "unpacks to 4294967294 bytes")


def test_samples_whose_header_promises_more_than_there_is(bundle: Path, tmp_path: Path) -> None:
    written_samples(bundle, npy_header((2**40,)))
    refused(bundle, tmp_path, "unpacks to 4398046511104 bytes")


def test_samples_that_are_no_arrays(bundle: Path, tmp_path: Path) -> None:
    written_samples(bundle, b"x")
    refused(bundle, tmp_path, "unreadable")


def test_nothing_is_unpickled(bundle: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    pickled = np.array([Evil()], dtype=object)
    np.savez(bundle / "parity" / "samples.npz", image=pickled)
    rewritten(bundle)
    refused(bundle, tmp_path, "pickled objects, which are never loaded")
    assert not ran.exists()


@pytest.mark.parametrize("name", [5, None, ["digits"]])
def test_a_model_without_a_name(name: object, bundle: Path, tmp_path: Path) -> None:
    rewritten(bundle, model={"name": name, "sha256": "0" * 64})
    refused(bundle, tmp_path, r"model\.name is ")
