"""A bundle as a folder that a production server takes, checked before any server sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy import registry
from deploy.errors import BundleError, RecipeError
from deploy.files import folder_aside, json_bytes, sha256_of, write_aside
from deploy.packaging.model_name import checked_name
from deploy.packaging.options import PackageOptions
from deploy.packaging.record import RECORD, SCHEMA_VERSION, changes_since
from deploy.packaging.served import served
from deploy.packaging.untrusted import load_servable
from deploy.packaging.written import Written


@dataclass(frozen=True)
class Packaged:
    """folder: what was written; record: its package.json."""

    folder: Path
    record: dict[str, Any]
    written: Written

    @property
    def command(self) -> str:
        """What starts the server on it."""
        return self.written.command.replace("{folder}", str(self.folder.resolve()))


def package_bundle(
    folder: Path, form: str, output: Path, name: str | None, options: PackageOptions
) -> Packaged:
    """The package of a verified bundle, whole or not at all.

    form: a file of `deploy/formats`. BundleError for a bundle that isn't as it was built,
    RecipeError for an output folder that holds anything but an earlier package.
    """
    module = registry.module("format", form)
    bundle = load_servable(folder)
    _check_free(output)
    source = served(bundle, checked_name(name or bundle.name))
    with folder_aside(output) as aside:
        written: Written = getattr(module, form)(source, aside, options)
        problems = module.check(aside)
        if problems:
            raise BundleError(f"{output}: a server would refuse it: {problems[0]}; not written")
        record = _record(aside, form, source.name, bundle.manifest, written)
        write_aside(aside / RECORD, json_bytes(record))
    return Packaged(output, record, written)


def check_package(folder: Path) -> tuple[str, list[str]]:
    """The format of a folder, and what a server would refuse in it or isn't as it was packaged.

    RecipeError for no package.
    """
    if not folder.is_dir():
        raise RecipeError(f"{folder}: no such folder; --check takes one that `package` wrote")
    names = registry.names("format")
    for form in names:
        module = registry.module("format", form)
        if module.recognizes(folder):
            # what isn't as it was packaged is never opened: a pipe has no end
            problems: list[str] = changes_since(folder) or module.check(folder)
            return form, problems
    raise RecipeError(f"{folder}: no package of {', '.join(names)}; give the folder of one")


def _record(
    folder: Path, form: str, name: str, manifest: dict[str, Any], written: Written
) -> dict[str, Any]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {
        "schema_version": SCHEMA_VERSION,
        "format": form,
        "name": name,
        "bundle": {
            "manifest_sha256": manifest["manifest_sha256"],
            "model": manifest["model"],
            "target": manifest["target"],
            "precision": manifest["precision"],
        },
        "notes": list(written.notes),
        "files": {p.relative_to(folder).as_posix(): sha256_of(p) for p in files},
        **written.facts,
    }


def _check_free(output: Path) -> None:
    """RecipeError unless nothing but an earlier package, as it was written, would be lost."""
    if output.name in ("", ".."):
        raise RecipeError(f"{str(output)!r}: give -o the name of a new folder")
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise RecipeError(f"{output}: exists and is not a folder; give another -o")
    if not output.exists() or not any(output.iterdir()):
        return
    try:
        record = json.loads((output / RECORD).read_text(encoding="utf-8"))
        listed = record["files"]
        ours = record["schema_version"] == SCHEMA_VERSION and isinstance(listed, dict)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours, listed = False, {}
    if not ours:
        first = min(p.name for p in output.iterdir())
        raise RecipeError(
            f"{output}: holds {first!r} and no package of ours, it won't be overwritten; give "
            "another -o"
        )
    there = {p.relative_to(output).as_posix(): p for p in output.rglob("*") if not p.is_dir()}
    for name, path in sorted(there.items()):
        if name == RECORD:
            continue
        if path.is_symlink() or name not in listed or sha256_of(path) != listed[name]:
            what = "added" if name not in listed else "changed"
            raise RecipeError(
                f"{output}: {name!r} was {what} since it was packaged and would be lost; give "
                "another -o"
            )
