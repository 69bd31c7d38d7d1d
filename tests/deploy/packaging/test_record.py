"""What was changed since a package was written, and what may be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import check_package, package_bundle

FILES = {
    "triton": "digits/1/model.bin",
    "ovms": "digits/1/model.bin",
    "docker": "serve/source/deploy/serving/body.py",
}


@pytest.fixture(scope="session")
def written(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One package of every format, in folders named after them."""
    folder = tmp_path_factory.mktemp("written")
    for form in FILES:
        package_bundle(digits, form, folder / form, None, PackageOptions())
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "copy")
    return tmp_path / "copy"


def problems(folder: Path) -> list[str]:
    return check_package(folder)[1]


@pytest.mark.parametrize(("form", "name"), [*FILES.items(), ("docker", "serve/requirements.txt")])
def test_changed_bytes(form: str, name: str, folder: Path) -> None:
    path = folder / form / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert f"{name}: changed (sha256 " in problems(folder / form)[0]


@pytest.mark.parametrize(("form", "name"), FILES.items())
def test_a_missing_file(form: str, name: str, folder: Path) -> None:
    (folder / form / name).unlink()
    assert f"{name}: missing, it was packaged" in problems(folder / form)


@pytest.mark.parametrize(("form", "name"), FILES.items())
def test_a_link_or_a_pipe_is_not_read(form: str, name: str, folder: Path) -> None:
    path = folder / form / name
    path.unlink()
    os.mkfifo(path)
    said = f"{name}: a link or no plain file; copy what it stands for"
    assert said in problems(folder / form)
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert said in problems(folder / form)


def test_a_pipe_in_a_version_put_beside_is_not_read(folder: Path) -> None:
    model = folder / "triton" / "digits"
    shutil.copytree(model / "1", model / "2")
    (model / "2" / "model.bin").unlink()
    os.mkfifo(model / "2" / "model.bin")
    (problem,) = problems(folder / "triton")
    assert problem.startswith("digits/2/model.bin: a link or no plain file")


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("triton", "digits/1/other.so"),
        ("ovms", "digits/1/deep/other.so"),
        ("docker", "serve/source/setup.py"),
        ("docker", "serve/source/deploy/serving/more.py"),
    ],
)
def test_an_added_file_beside_what_was_written(form: str, name: str, folder: Path) -> None:
    path = folder / form / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert problems(folder / form) == [
        f"{name}: added to what was packaged; take it out, or package again"
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "package.json: missing"),
        ("{", "package.json: Expecting property name"),
        ("[" * 100_000, "package.json: "),
        ("[]", "package.json: no table of files"),
        ('{"files": {"x": 1}}', "package.json: no table of files"),
        ('{"files": {}, "schema_version": 99}', "package.json: schema version '99', not 1"),
        ("[" + " " * 2**24, f"package.json: {2**24 + 1} bytes"),
    ],
)
@pytest.mark.parametrize("form", FILES)
def test_a_package_without_its_record(
    form: str, content: str | None, said: str, folder: Path
) -> None:
    record = folder / form / "package.json"
    record.unlink()
    if content is not None:
        record.write_text(content)
    (problem,) = problems(folder / form)
    assert problem.startswith(said)


def test_a_record_that_leads_out_reads_nothing(folder: Path) -> None:
    record = folder / "triton" / "package.json"
    content = json.loads(record.read_text())
    content["files"]["../secret"] = "0" * 64
    record.write_text(json.dumps(content))
    assert problems(folder / "triton") == ["../secret: missing, it was packaged"]


@pytest.mark.parametrize(
    ("form", "name", "added"),
    [
        ("triton", "digits/config.pbtxt", "# tuned\n"),
        ("ovms", "config.json", "\n"),
        ("docker", "Dockerfile", "# ours\n"),
        ("docker", "docker-compose.yml", "# ours\n"),
        ("docker", "prometheus.yml", "# ours\n"),
    ],
)
def test_a_configuration_may_be_changed(form: str, name: str, added: str, folder: Path) -> None:
    with (folder / form / name).open("a") as stream:
        stream.write(added)
    assert problems(folder / form) == []


@pytest.mark.parametrize("form", ["triton", "ovms"])
def test_a_version_may_be_put_beside(form: str, folder: Path) -> None:
    model = folder / form / "digits"
    shutil.copytree(model / "1", model / "2")
    assert problems(folder / form) == []


def test_a_configuration_inside_of_a_bundle_is_no_configuration(folder: Path) -> None:
    (folder / "docker" / "serve" / "config.json").write_text("{}")
    assert "serve/config.json: added" in problems(folder / "docker")[0]
