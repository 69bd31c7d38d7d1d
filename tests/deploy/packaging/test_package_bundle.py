"""A package is whole or absent, and nothing of the user's is lost for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import BundleError, RecipeError
from deploy.files import sha256_of
from deploy.packaging import package_bundle as module
from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import check_package, package_bundle

FORMATS = ("docker", "ovms", "triton")


def packaged(bundle: Path, output: Path, form: str = "triton") -> None:
    package_bundle(bundle, form, output, None, PackageOptions())


def contents(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in files}


@pytest.mark.parametrize("form", FORMATS)
def test_it_is_recognized_and_accepted(form: str, digits: Path, tmp_path: Path) -> None:
    packaged(digits, tmp_path / "p", form)
    assert check_package(tmp_path / "p") == (form, [])


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_bundle_gives_the_same_bytes(form: str, digits: Path, tmp_path: Path) -> None:
    packaged(digits, tmp_path / "a", form)
    packaged(digits, tmp_path / "b", form)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_package_is_replaced(digits: Path, tmp_path: Path) -> None:
    packaged(digits, tmp_path / "p")
    package_bundle(digits, "triton", tmp_path / "p", "other", PackageOptions())
    assert (tmp_path / "p" / "other" / "config.pbtxt").is_file()
    assert not (tmp_path / "p" / "digits").exists()


def test_an_empty_folder_is_taken(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    packaged(digits, tmp_path / "p")
    assert check_package(tmp_path / "p")[1] == []


def test_a_foreign_folder_is_never_overwritten(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match=r"holds 'thesis\.txt' and no package of ours"):
        packaged(digits, tmp_path / "p")
    assert contents(tmp_path / "p").keys() == {"thesis.txt"}


def test_a_file_that_was_added_is_not_lost(digits: Path, tmp_path: Path) -> None:
    packaged(digits, tmp_path / "p")
    (tmp_path / "p" / "digits" / "labels.txt").write_text("0 1 2")
    with pytest.raises(RecipeError, match=r"'digits/labels\.txt' was added"):
        packaged(digits, tmp_path / "p")


def test_a_configuration_that_was_changed_is_not_lost(digits: Path, tmp_path: Path) -> None:
    packaged(digits, tmp_path / "p")
    with (tmp_path / "p" / "digits" / "config.pbtxt").open("a") as stream:
        stream.write("# tuned\n")
    with pytest.raises(RecipeError, match=r"'digits/config\.pbtxt' was changed"):
        packaged(digits, tmp_path / "p")


def test_a_link_or_file_in_its_place(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(RecipeError, match="is not a folder"):
            packaged(digits, tmp_path / name)


def test_what_a_server_would_refuse_is_not_written(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploy.formats import triton

    packaged(digits, tmp_path / "p")
    before = contents(tmp_path / "p")
    monkeypatch.setattr(triton, "check", lambda _: ["digits: something is wrong"])
    with pytest.raises(BundleError, match="something is wrong; not written"):
        packaged(digits, tmp_path / "p")
    assert contents(tmp_path / "p") == before
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_the_record_names_the_bundle_and_every_file(digits: Path, tmp_path: Path) -> None:
    import json

    packaged(digits, tmp_path / "p")
    record = json.loads((tmp_path / "p" / module.RECORD).read_text())
    manifest = json.loads((digits / "manifest.json").read_text())
    assert record["bundle"]["manifest_sha256"] == manifest["manifest_sha256"]
    files = contents(tmp_path / "p")
    files.pop(module.RECORD)
    assert record["files"] == files


def test_what_is_no_package_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no package of docker, ovms, triton"):
        check_package(tmp_path)
    with pytest.raises(RecipeError, match="no such folder"):
        check_package(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"version": 0}, "--model-version 0"),
        ({"max_batch": -1}, "--max-batch -1"),
        ({"instances": 0}, "--instances 0"),
    ],
)
def test_absurd_choices_are_refused(wrong: dict[str, int], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        PackageOptions(**wrong)  # type: ignore[arg-type]
