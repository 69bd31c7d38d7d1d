"""`deploy package`: a bundle as a folder for Triton, OpenVINO Model Server or Docker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli import options
from deploy.cli.terminal import print_json

if TYPE_CHECKING:
    from deploy.packaging.package_bundle import Packaged


@click.command("package", short_help="A bundle as a folder for Triton, OVMS or Docker.")
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--format", "form", help="triton, ovms or docker.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The folder to write.")
@click.option("--name", help="The served model's name; the model file's stem if not given.")
@click.option("--model-version", type=int, default=1, show_default=True, help="Its version.")
@click.option(
    "--max-batch",
    type=int,
    default=0,
    help="Let the server group requests to so many samples.  [default: what the engine allows]",
)
@click.option(
    "--instances", type=int, default=1, show_default=True, help="Requests computed at a time."
)
@click.option(
    "--triton-tag",
    metavar="TAG[=TENSORRT]",
    help="The month of Triton's container.  [default: by the engine's TensorRT]",
)
@click.option(
    "--plugin-library",
    "plugin_libraries",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="A library finish.py built on the device, for an engine with plugins.",
)
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    help="Check a folder as written or changed by you, instead.",
)
@options.json_option
def command(
    bundle: Path | None,
    form: str | None,
    output: Path | None,
    check: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Write BUNDLE as what a production server takes, checked before any server sees it.

    --check DIR says what a server would refuse in such a folder; exit 1 when there is something.
    """
    from deploy.errors import RecipeError

    if check is not None:
        if bundle is not None or form is not None or output is not None:
            raise RecipeError("--check takes a folder alone; leave BUNDLE, --format and -o out")
        _check(check, as_json)
        return
    missing = [
        flag
        for flag, value in (("BUNDLE", bundle), ("--format", form), ("-o", output))
        if value is None
    ]
    if bundle is None or form is None or output is None:
        raise RecipeError(
            f"{', '.join(missing)} missing; deploy package BUNDLE --format triton -o DIR"
        )
    _package(bundle, form, output, flags, as_json)


def _package(bundle: Path, form: str, output: Path, flags: dict[str, Any], as_json: bool) -> None:
    from deploy.packaging.options import PackageOptions
    from deploy.packaging.package_bundle import package_bundle

    chosen = PackageOptions(
        version=flags["model_version"],
        max_batch=flags["max_batch"],
        instances=flags["instances"],
        triton_tag=flags["triton_tag"],
        plugin_libraries=tuple(flags["plugin_libraries"]),
    )
    made = package_bundle(bundle, form, output, flags["name"], chosen)
    _print(made)
    if as_json:
        print_json({"output": str(output), "command": made.command, **made.record})


def _print(made: Packaged) -> None:
    count = len(made.record["files"])
    click.echo(f"{made.folder}: {made.record['name']} for {made.record['format']}, {count} files")
    for note in made.written.notes:
        click.echo(f"note       {note}")
    click.echo(f"run        {made.command}")


def _check(folder: Path, as_json: bool) -> None:
    from deploy.errors import BundleError
    from deploy.packaging.package_bundle import check_package

    form, problems = check_package(folder)
    for problem in problems:
        click.echo(problem)
    if as_json:
        print_json({"folder": str(folder), "format": form, "problems": problems})
    if problems:
        raise BundleError(f"{folder}: {len(problems)} found; mend them or package again")
    if not as_json:
        click.echo(f"{folder}: {form}, nothing a server would refuse")
