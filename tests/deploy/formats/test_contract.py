"""What every serving format promises, whichever files are in `deploy/formats`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy import registry
from deploy.errors import DeployError
from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import check_package, package_bundle

FORMATS = registry.names("format")
NONE = PackageOptions()


@pytest.mark.parametrize("form", FORMATS)
def test_what_it_writes_it_recognizes_and_accepts(form: str, digits: Path, tmp_path: Path) -> None:
    made = package_bundle(digits, form, tmp_path / "p", "served", NONE)
    module = registry.module("format", form)
    assert module.recognizes(made.folder)
    assert module.check(made.folder) == []
    assert check_package(made.folder) == (form, [])
    assert str(made.folder) in made.command
    assert "{folder}" not in made.command


@pytest.mark.parametrize("form", FORMATS)
def test_no_other_format_takes_it_for_its_own(form: str, digits: Path, tmp_path: Path) -> None:
    package_bundle(digits, form, tmp_path / "p", None, NONE)
    own = [name for name in FORMATS if registry.module("format", name).recognizes(tmp_path / "p")]
    assert own == [form]


@pytest.mark.parametrize("form", FORMATS)
def test_the_bundle_is_left_as_it_was(form: str, bundle: Path, tmp_path: Path) -> None:
    from deploy.artifacts.bundle import Bundle

    package_bundle(bundle, form, tmp_path / "p", None, NONE)
    assert Bundle.load(bundle).problems() == []


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_of_this_machine_is_in_it(form: str, digits: Path, tmp_path: Path) -> None:
    made = package_bundle(digits, form, tmp_path / "p", None, NONE)
    # the bundle's own manifest has its build's command
    own = (p for p in made.folder.rglob("*") if p.is_file() and "bundle" not in p.parts[:-1])
    for path in own:
        assert str(tmp_path).encode() not in path.read_bytes(), path


@pytest.mark.parametrize("form", FORMATS)
def test_a_bundle_without_its_engine_is_refused(form: str, bundle: Path, tmp_path: Path) -> None:
    import shutil

    from served_bundles import rewritten

    shutil.move(bundle / "engine", bundle / "simulation")
    rewritten(bundle, target="xavier")
    with pytest.raises(DeployError, match="no engine in it yet, it was built for xavier"):
        package_bundle(bundle, form, tmp_path / "p", None, NONE)


@pytest.mark.parametrize("form", FORMATS)
def test_the_record_is_json_with_the_notes(form: str, digits: Path, tmp_path: Path) -> None:
    made = package_bundle(digits, form, tmp_path / "p", None, NONE)
    record = json.loads((made.folder / "package.json").read_text())
    assert record == made.record
    assert record["notes"] == list(made.written.notes)
    assert record["format"] == form
